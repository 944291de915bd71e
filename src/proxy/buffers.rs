#[derive(Default)]
pub(crate) struct Buffers;
