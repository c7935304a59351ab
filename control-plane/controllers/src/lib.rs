//! skep-controllers
