//! The kubelet's server as people meet it: every `kubectl` of the machine, through a real API server, against a kubelet whose containers are processes of
//! this machine; and the protocols one by one.

mod cluster;
mod http_api;
mod kubectl;
mod processes;
mod websocket;
