//! Whole-system tests of Skep.
