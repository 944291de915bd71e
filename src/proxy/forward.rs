use super::connection::Connection;
use super::http1::RequestHead;
pub(super) async fn forward(_c: &mut Connection, _h: RequestHead) -> bool {
    false
}
