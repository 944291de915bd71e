use super::check;

#[test]
fn s3() {
    check(
        "s3",
        "
        GET /bucket/key?X-Amz-Signature=abc               -> get read
        HEAD /key                                         -> get read
        GET /bucket?list-type=2&prefix=a                  -> list read
        PUT /bucket/key                                   -> put write
        POST /bucket/key?uploads                          -> multipart write
        PUT /bucket/key?partNumber=1&uploadId=u           -> multipart write
        POST /bucket/key?uploadId=u                       -> multipart write
        DELETE /bucket/key?uploadId=u                     -> multipart write
        POST /bucket?delete                               -> delete write
        DELETE /bucket/key                                -> delete write
        POST /bucket                                      -> put write
        get /bucket/key                                   -> other write
        ",
    );
}

#[test]
fn gcs() {
    check(
        "gcs",
        "
        GET /storage/v1/b/bucket/o?prefix=a               -> list read
        GET /storage/v1/b/bucket/o/key?alt=media          -> get read
        GET /bucket/key                                   -> get read
        POST /upload/storage/v1/b/bucket/o?name=x         -> upload write
        PUT /upload/storage/v1/b/bucket/o?upload_id=x     -> upload write
        POST /storage/v1/b/bucket/o/key/rewriteTo/b/c/o/d -> copy write
        PATCH /storage/v1/b/bucket/o/key                  -> edit write
        DELETE /storage/v1/b/bucket/o/key                 -> delete write
        POST /batch/storage/v1                            -> batch write
        PUT /bucket/key                                   -> put write
        ",
    );
}

#[test]
fn azure_blob() {
    check(
        "azure-blob",
        "
        GET /container/blob?sv=x&sig=y                    -> get read
        GET /container?restype=container&comp=list        -> list read
        PUT /container/blob                               -> put write
        PUT /container/blob?comp=block&blockid=x          -> put write
        DELETE /container/blob                            -> delete write
        POST /?comp=batch                                 -> batch write
        ",
    );
}
