//! What Skep is measured with: loads that several benches and comparisons share.
//!
//! Invariant: a load is bounded in count or time, and says how it was made. On a small machine absolute times wobble: compare two things in one run.

pub mod store_load;
