use super::check;

#[test]
fn anthropic() {
    check(
        "anthropic",
        "
        POST /v1/messages?beta=true                       -> messages call Model
        POST /anthropic/v1/messages                       -> messages call Model
        POST /v1/messages/                                -> other write
        POST /v1/Messages                                 -> other write
        POST /v1/messages;x=1                             -> other write
        PUT /v1/messages                                  -> other write
        POST /v1/messages/count_tokens?beta=true          -> count-tokens call
        POST /v1/messages/batches                         -> batch call
        GET /v1/messages/batches/b1/results               -> batch read
        POST /v1/messages/batches/b1/cancel               -> cancel-batch write
        GET /v1/models                                    -> models read
        POST /v1/files                                    -> upload write
        POST /v1/files?beta=true                          -> upload write
        GET /v1/files/f1/content                          -> files read
        DELETE /v1/files/f1                               -> delete-file write
        POST /v1/skills                                   -> skill write
        DELETE /v1/skills/s1                              -> skill write
        POST /api/oauth/file_upload                       -> upload write
        POST /api/frame/publish                           -> upload write
        POST /api/claude_cli_feedback                     -> feedback write
        POST /api/claude_code_shared_session_transcripts  -> transcript write
        POST /api/event_logging/v2/batch                  -> telemetry write
        GET /api/web/domain_info?domain=example.com       -> domain-info read
        POST /v1/oauth/token                              -> sign-in write
        GET /api/oauth/profile                            -> account read
        GET /api/claude_code/settings                     -> managed-policy read
        POST /v1/mcp/srv_1                                -> mcp call Mcp
        POST /v1/sessions                                 -> remote-control write
        GET /v1/sessions/ws/s1/subscribe                  -> remote-control write
        GET /api/ws/speech_to_text/voice_stream           -> remote-control write
        GET /v1/sessions/s1                               -> other read
        GET /v1/session_ingress/session/s1/git_proxy/a/b  -> tunnel write
        GET /v1/code/upstreamproxy/ws                     -> tunnel write
        GET /v1/code/upstreamproxy/ca-cert                -> tunnel-certificate read
        HEAD /api/hello                                   -> hello read
        POST /v1/unheard-of                               -> other write
        ",
    );
}

#[test]
fn openai() {
    check(
        "openai",
        "
        POST /v1/responses                                -> responses call Model
        GET /v1/responses                                 -> responses call
        GET /v1/responses/r1                              -> other read
        POST /v1/chat/completions                         -> chat call Model
        POST /v1/embeddings                               -> embeddings call
        GET /v1/realtime?model=x                          -> realtime call
        GET /v1/models                                    -> models read
        POST /v1/files                                    -> upload write
        GET /v1/files/f1/content                          -> other read
        POST /v1/uploads/u1/parts                         -> upload write
        POST /v1/vector_stores                            -> store write
        POST /v1/batches                                  -> batch write
        POST /v1/traces/ingest                            -> telemetry write
        POST /v1/chat/completions/x                       -> other write
        ",
    );
}

#[test]
fn bedrock() {
    check(
        "bedrock",
        "
        POST /model/anthropic.claude-x-v1%3A0/invoke      -> invoke call Model
        POST /model/anthropic.claude-x-v1:0/invoke-with-response-stream -> invoke call Model
        POST /model/m/converse-stream                     -> invoke call Model
        POST /model/m/count-tokens                        -> count-tokens call
        POST /model/m/Invoke                              -> other write
        POST /async-invoke                                -> async-invoke write
        GET /inference-profiles?type=SYSTEM_DEFINED       -> list read
        POST /inference-profiles                          -> other write
        ",
    );
}

#[test]
fn vertex() {
    check(
        "vertex",
        "
        POST /v1/projects/p/locations/global/publishers/anthropic/models/m:streamRawPredict -> predict call Model
        POST /v1/projects/p/locations/l/publishers/anthropic/models/m@20250101:rawPredict -> predict call Model
        POST /v1/projects/p/locations/l/publishers/google/models/m:generateContent -> generate call Model
        POST /v1beta/models/m:streamGenerateContent?alt=sse -> generate call Model
        POST /v1beta/models/m:countTokens                 -> count-tokens call
        POST /v1beta/models/m%3AgenerateContent           -> other write
        POST /v1beta/models/m:tune                        -> other write
        POST /upload/v1beta/files                         -> upload write
        POST /v1/projects/p/locations/l/endpoints         -> other write
        GET /v1beta/models                                -> models read
        ",
    );
}
