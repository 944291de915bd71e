//! Ways at the identity: which repository, which session, which tool call.
