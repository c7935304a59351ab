//! The cloud controller manager: the interface to clouds (machines, load balancers, routes). Nothing of it is built yet; the crate holds its place in the
//! architecture.
