//! The queue by itself, and the state fed with watch events; time is given.

mod queue;
mod state;
