//! The queue by itself, the state fed with watch events, and work performed against a scripted server; time is given.

mod perform;
mod queue;
mod state;
