//! (to come)

pub(crate) mod buffers;
pub(crate) mod hello;
pub(crate) mod http1;
pub(crate) mod relay;
