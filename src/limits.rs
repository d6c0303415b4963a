//! Every bound, with its unit, its reason, and what is seen when it is hit.
//!
//! Owns numbers only. Defaults are nats-server's where it has one; the worst case of memory
//! is a sum a reader can do from this page (see `ARCHITECTURE.md`, "Bounds").
//!
//! Source: NATS docs, "Server configuration"; nats-server 2.15.1 where a default is its own.

use core::time::Duration;

// --- Client protocol ---

/// Longest argument text of one operation, in bytes, verb and `\r\n` excluded. Over it:
/// `-ERR 'maximum control line exceeded'`, closed. Config: `max_control_line`.
pub const CONTROL_LINE_BYTES_MAX: usize = 4096;
/// Header plus payload of one message, in bytes. Over it: `-ERR 'Maximum Payload
/// Violation'`, closed. Config: `max_payload`.
pub const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;
/// What `max_payload` itself may be set to, in bytes: sizes on the wire have 9 digits.
pub const PAYLOAD_BYTES_CEILING: usize = 999_999_999;
/// Bytes waiting for one connection. Over it: slow consumer, closed. Config: `max_pending`.
pub const PENDING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Client connections at once. Over it: `-ERR 'maximum connections exceeded'`, closed.
/// Config: `max_connections`.
pub const CONNECTIONS_MAX: usize = 65_536;
/// Missed PONGs before `-ERR 'Stale Connection'`. Config: `ping_max`.
pub const PINGS_OUT_MAX: u32 = 2;
/// Between PINGs of the server. Config: `ping_interval`.
pub const PING_INTERVAL: Duration = Duration::from_mins(2);
/// From CONNECT to the first PING of the server, at most (it measures the round trip).
pub const FIRST_PING_DELAY: Duration = Duration::from_secs(2);
/// A connection that takes none of our bytes for this long is closed as a slow consumer.
/// Config: `write_deadline`.
pub const WRITE_DEADLINE: Duration = Duration::from_secs(10);
/// Bytes of one read from a socket, at most; all connections share one buffer.
pub const READ_BUFFER_BYTES: usize = 512 * 1024;
/// A read of this many bytes or more is written to its receivers before the next one, and
/// payloads of [`LENT_BYTES_MIN`] or more from where they were read.
pub const LENDING_READ_BYTES_MIN: usize = 64 * 1024;
/// See [`LENDING_READ_BYTES_MIN`]: smaller payloads are copied, which costs less than one more
/// piece in a write. A read has 256 of them at most, a write of Linux 1,024 pieces.
pub const LENT_BYTES_MIN: usize = 2 * 1024;
/// The size that buffer begins with, in bytes.
pub const READ_BUFFER_BYTES_MIN: usize = 16 * 1024;
/// Free outbox buffers kept for the next message, and the capacity above which one is given
/// back to the allocator instead: together they bound what idle outboxes hold.
pub const OUTBOX_POOL_LEN: usize = 16;
/// See [`OUTBOX_POOL_LEN`]; bytes.
pub const OUTBOX_POOL_BYTES_MAX: usize = 512 * 1024;
/// Subjects whose receivers are remembered. The oldest is forgotten first.
pub const MATCH_CACHE_LEN: usize = 1024;

/// Answers an account waits for from other accounts at a time. Over it a request that crosses
/// into another account is dropped, and its sender told that nobody answers.
pub const RESPONSES_MAX: usize = 16_384;
/// How long such an answer may take. Config: `threshold` of an export.
pub const RESPONSE_THRESHOLD: Duration = Duration::from_mins(2);
/// What is noted of one traced message, in bytes of JSON. More is left out.
pub const MESSAGE_TRACE_BYTES_MAX: usize = 256 * 1024;
/// Imports a message may pass through. Over it it goes no further.
pub const IMPORT_DEPTH_MAX: usize = 16;
/// Accounts of one server. More are a configuration error.
pub const ACCOUNTS_MAX: usize = 16_384;
/// From SIGUSR2 to the close of the first client. Config: `lame_duck_grace_period`.
pub const LAME_DUCK_GRACE: Duration = Duration::from_secs(10);
/// From SIGUSR2 to the close of the last client. Config: `lame_duck_duration`.
pub const LAME_DUCK_DURATION: Duration = Duration::from_mins(2);
/// Bytes of trace lines that wait to be printed; further lines are counted, and the count is
/// printed.
pub const TRACE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of one operation shown in a trace line. Config: `max_traced_msg_len` may say less.
pub const TRACED_BYTES_MAX: usize = 16 * 1024;

// A control line must fit the buffer whole, or the parser could never finish it.
const _: () = assert!(CONTROL_LINE_BYTES_MAX + 16 <= READ_BUFFER_BYTES_MIN);

/// Closed connections that are remembered for `/connz`, at most. Config:
/// `max_closed_clients`.
pub const CLOSED_CLIENTS_MAX: usize = 10_000;
/// What they may take together, in bytes: about 5,000 of them. The oldest are forgotten.
pub const CLOSED_BYTES_MAX: usize = 1024 * 1024;
/// What is kept of each text a closed connection gave of itself, in bytes.
pub const CLOSED_TEXT_BYTES_MAX: usize = 128;

// --- Permissions and sign-in ---

/// Subjects of one connection whose permission is remembered, where finding it takes long.
/// All are forgotten when there are more.
pub const VERDICTS_LEN: usize = 128;
/// Longest subject remembered there, in bytes.
pub const VERDICT_SUBJECT_BYTES_MAX: usize = 256;
/// Replies one connection may publish to because it received them (`allow_responses`). Over
/// it the older half is forgotten, so that late answers are refused.
pub const REPLY_GRANTS_MAX: usize = 65_536;
/// Longest reply granted, in bytes. A longer one cannot be answered.
pub const REPLY_BYTES_MAX: usize = 1024;
/// Grants that are over are looked for after so many new ones, or after
/// [`REPLY_PRUNE_INTERVAL`].
pub const REPLY_PRUNE_LEN: usize = 4096;
/// See [`REPLY_PRUNE_LEN`].
pub const REPLY_PRUNE_INTERVAL: Duration = Duration::from_secs(1);

/// What clients may send behind a CONNECT whose password is being compared with a hash, all
/// of them together, in bytes. Who goes over it is closed.
pub const PARKED_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Passwords that were found to have their hash and need not be compared again. All are
/// forgotten when there are more.
pub const PASSWORDS_KNOWN_MAX: usize = 1024;

// --- Ways in ---

/// Time of one turn that goes to TLS handshakes, at most; the rest of them wait for the next
/// turn. One handshake takes 0.1 ms (ECDSA) to 1 ms (RSA) and always goes on, so that a storm
/// of them delays others by at most this and one more.
pub const HANDSHAKE_SHARE: Duration = Duration::from_millis(2);
/// From accept to the end of the PROXY header. Over it: closed.
pub const PROXY_TIMEOUT: Duration = Duration::from_secs(5);
/// A PROXY header of version 2 with its extensions, in bytes. Over it: closed.
pub const PROXY_HEADER_BYTES_MAX: usize = 4096;

/// From accept to the end of a WebSocket upgrade, unless `handshake_timeout` is set:
/// nats-server waits for ever. Over it: closed.
pub const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);
/// The request of a WebSocket upgrade, in bytes. Over it: status 431.
pub const UPGRADE_BYTES_MAX: usize = 16 * 1024;
/// Its header fields. Over it: status 431.
pub const UPGRADE_HEADERS_MAX: usize = 64;
/// Requests to the server's own services (`$SYS.REQ.…`) that wait. More get no answer.
pub const SYSTEM_REQUESTS_MAX: usize = 256;
/// Of these answered in one turn: some take as long as a page of connections.
pub const SYSTEM_REQUESTS_PER_TURN: usize = 16;
/// Payload of such a request, in bytes. Over it there is no answer.
pub const SYSTEM_REQUEST_BYTES_MAX: usize = 4096;
/// Events of the server (`$SYS.ACCOUNT.….CONNECT` and so on) that wait to be sent in a turn,
/// at most 1 KiB each. More are lost.
pub const SYSTEM_EVENTS_MAX: usize = 1024;

// --- Leaf nodes ---

/// A leaf's control line may be this many times `max_control_line` (queue lists are long).
pub const LEAF_CONTROL_LINE_FACTOR: usize = 16;
/// Between losing a leaf connection and dialling again. Config: `leafnodes.reconnect`.
pub const LEAF_RECONNECT: Duration = Duration::from_secs(1);
/// For a TCP connect of a leaf remote. Config: `leafnodes.dial_timeout`.
pub const LEAF_DIAL_TIMEOUT: Duration = Duration::from_secs(1);
/// From connect to the hub's first INFO. Config: `first_info_timeout` of a remote.
pub const LEAF_FIRST_INFO_TIMEOUT: Duration = Duration::from_secs(1);
/// From our CONNECT to the hub's second INFO.
pub const LEAF_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// For the TLS handshake of a leaf remote. Config: `tls.timeout` of a remote.
pub const LEAF_TLS_TIMEOUT: Duration = Duration::from_secs(2);
/// How long bytes on a leaf link may stay unacknowledged before the kernel ends it. In an
/// outage retransmissions get rarer and rarer, so that the first one after it may come as
/// late again as the outage was long; a new connection is there within a second.
pub const LEAF_UNACKED_MAX: Duration = Duration::from_secs(3);
/// Extra wait after a loop or a cluster name of our own was seen.
pub const LEAF_LOOP_DELAY: Duration = Duration::from_secs(30);
/// Subscriptions taken from one leaf peer. Over it: `-ERR 'maximum subscriptions
/// exceeded'`, that subscription is ignored.
pub const LEAF_SUBSCRIPTIONS_MAX: usize = 65_536;
/// Gossiped URLs kept of one hub. More are ignored.
pub const LEAF_GOSSIP_URLS_MAX: usize = 64;
/// Remotes in one configuration. More are a configuration error.
pub const LEAF_REMOTES_MAX: usize = 64;

// --- JetStream ---

/// Streams in one server. Over it: `err_code` 10027.
pub const STREAMS_MAX: usize = 4096;
/// Consumers in one server, hidden ones included. Over it: `err_code` 10026.
pub const CONSUMERS_MAX: usize = 65_536;
/// Header block of one stored message, in bytes. Over it: `err_code` 10097.
pub const STORED_HEADER_BYTES_MAX: usize = 65_535;
/// Stream, consumer and durable names, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Description of a stream or consumer, in bytes.
pub const DESCRIPTION_BYTES_MAX: usize = 4096;
/// Sum of keys and values of a stream's or consumer's metadata, in bytes.
pub const METADATA_BYTES_MAX: usize = 128 * 1024;
/// Messages a consumer may have delivered and not acknowledged, unless it sets its own.
pub const ACK_PENDING_DEFAULT: i64 = 1000;
/// What `max_ack_pending` of a consumer may be at most, also when it asks for -1: pending
/// acks live in memory.
pub const ACK_PENDING_MAX: i64 = 65_536;
/// Pull requests waiting at one consumer, unless it sets its own.
pub const WAITING_DEFAULT: i64 = 512;
/// What `max_waiting` of a consumer may be at most.
pub const WAITING_MAX: i64 = 65_536;
/// Messages published to streams and not yet answered by the store, all streams together,
/// in bytes. Over it the publisher gets `err_code` 10167 and the message is dropped.
pub const INGEST_BYTES_MAX: usize = 32 * 1024 * 1024;
/// One publish batch handed to the store, in bytes: the store commits several at once, so
/// this bounds memory, not speed.
pub const INGEST_BATCH_BYTES: usize = 1024 * 1024;
/// The id of an atomic batch, in bytes. Over it: `err_code` 10179.
pub const BATCH_ID_BYTES_MAX: usize = 64;
/// Messages of batches that are not with the store yet, all streams together, in bytes:
/// nats-server keeps them on disk. Over it an atomic batch is given up with `err_code` 10210,
/// and a message of a fast one refused with 10167.
pub const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Messages of one atomic batch. Over it: `err_code` 10199. Config: `max_msgs` in
/// `jetstream { limits { batch { } } }`.
pub const BATCH_MSGS_MAX: u64 = 1000;
/// Atomic batches at a time of one stream. Over it: `err_code` 10210. Config:
/// `max_inflight_per_stream`.
pub const BATCHES_PER_STREAM_MAX: u64 = 50;
/// Atomic batches at a time. Over it: `err_code` 10210. Config: `max_inflight_total`.
pub const BATCHES_MAX: u64 = 1000;
/// A batch nobody goes on with is given up after this. Config: `timeout`.
pub const BATCH_TIMEOUT: Duration = Duration::from_secs(10);
/// Fast batches at a time of one stream. Over it: `err_code` 10211.
pub const FAST_BATCHES_PER_STREAM_MAX: u64 = 1000;
/// Fast batches at a time, each with an id of at most a control line. Over it: `err_code`
/// 10211.
pub const FAST_BATCHES_MAX: usize = 4096;
/// Replies of the store in memory handled in one turn; more wait for the next.
pub const MEMORY_REPLIES_PER_TURN: usize = 1024;
/// Stored messages kept in memory for consumers that are caught up, all streams, in bytes.
pub const TAIL_CACHE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// One read from the store for a consumer, in bytes of decoded messages.
pub const READ_CHUNK_BYTES: usize = 256 * 1024;
/// Requests that wait for the store, of the API and of consumers. Over it API requests get no
/// answer, as nats-server's full queue gives none.
pub const API_WAITING_MAX: usize = 10_000;
/// Names in one page of a NAMES reply.
pub const API_NAMES_PAGE: usize = 1024;
/// Entries in one page of a LIST reply.
pub const API_LIST_PAGE: usize = 256;
/// Subjects one batched direct get for last messages may match. Over it: `413 Too Many
/// Results`.
pub const DIRECT_SUBJECTS_MAX: usize = 1024;
/// Bytes of messages in one batched direct get that names no `max_bytes`.
pub const DIRECT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// One message, or one consumer's state, in a backup that is restored; a larger one makes the
/// restore fail. As nats-server's largest record with its headers.
pub const RESTORE_ENTRY_BYTES_MAX: usize = 33 * 1024 * 1024;
/// Backups and restores under way in one account; more are refused.
pub const BACKUPS_MAX: usize = 8;
/// Bytes of a restore that the store has not taken yet; one that sends more is ended.
pub const RESTORE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Interior deleted sequences in one stream info with `deleted_details`.
pub const API_DELETED_MAX: u32 = 1_000_000;
/// Subjects in one page of a stream info with `subjects_filter`.
pub const API_SUBJECTS_PAGE: usize = 100_000;
/// The default window for `Nats-Msg-Id`.
pub const DUPLICATE_WINDOW: Duration = Duration::from_mins(2);
/// Flow control of a push consumer starts with this window, in bytes, and doubles with each
/// answer up to [`FLOW_WINDOW_BYTES_MAX`].
pub const FLOW_WINDOW_BYTES_MIN: usize = 2 * 1024 * 1024;
/// See [`FLOW_WINDOW_BYTES_MIN`].
pub const FLOW_WINDOW_BYTES_MAX: usize = 32 * 1024 * 1024;
/// What may wait in one connection's outbox before consumers stop feeding it, in bytes: a
/// backlog then waits on disk instead of in memory.
pub const DELIVERY_BACKLOG_BYTES: usize = 1024 * 1024;

// --- Tokens ---

/// One JWT, in bytes. Over it: it is no token.
pub const JWT_BYTES_MAX: usize = 1024 * 1024;
/// Subjects that the markers of one list of a template may come to. Over it the login is
/// refused, as by nats-server.
pub const TEMPLATE_ENTRIES_MAX: usize = 4096;
/// Tokens of accounts that are held, all together, in bytes. Over it: `jwt store is full`.
pub const CLAIMS_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Accounts that are asked for elsewhere at a time. A login in one more is refused.
pub const CLAIMS_LOOKUPS_MAX: usize = 64;
/// How long it is believed that nobody knows an account; logins in it are refused at once.
pub const CLAIMS_MISSING: Duration = Duration::from_secs(2);
/// So many of these are remembered.
pub const CLAIMS_MISSING_LEN: usize = 1024;
/// From asking for an account by HTTP to giving up.
pub const CLAIMS_FETCH_TIMEOUT: Duration = Duration::from_millis(1900);
/// Changes of the resolver's directory that wait for the disk. More are not answered.
pub const CLAIMS_WRITES_MAX: usize = 256;
