//! `permessage-deflate` without context takeover.
//!
//! Owns compressing and inflating one message. The compressor is shared by all connections,
//! for nothing of a message is needed for the next one.
//!
//! Source: RFC 7692.

use miniz_oxide::deflate::core::{
    CompressorOxide, TDEFLFlush, compress_to_output, create_comp_flags_from_zip_params,
};
use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZError, MZFlush, MZStatus};

use super::{Ended, Sink};

/// What inflating gives at once, in bytes.
const PIECE_BYTES: usize = 16 * 1024;

/// What a flush ends with and a message leaves out.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// Compresses messages. It holds nothing until the first one.
#[derive(Default)]
pub struct Deflater {
    compressor: Option<Box<CompressorOxide>>,
    out: Vec<u8>,
}

impl std::fmt::Debug for Deflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deflater").finish_non_exhaustive()
    }
}

impl Deflater {
    /// Compresses a message.
    pub fn deflate(&mut self, message: &[u8]) -> &[u8] {
        // Raw deflate at the fastest level, as nats-server.
        let flags = || create_comp_flags_from_zip_params(1, 0, 0);
        let compressor =
            self.compressor.get_or_insert_with(|| Box::new(CompressorOxide::new(flags())));
        compressor.reset();
        self.out.clear();
        let out = &mut self.out;
        compress_to_output(compressor, message, TDEFLFlush::Sync, |bytes| {
            out.extend_from_slice(bytes);
            true
        });
        let end = self.out.strip_suffix(&TAIL).map_or(self.out.len(), <[u8]>::len);
        self.out.truncate(end);
        &self.out
    }
}

/// Inflates one message, which may come in pieces.
pub struct Inflater {
    state: Box<InflateState>,
    /// What the message may still come to, in bytes.
    left: usize,
}

impl std::fmt::Debug for Inflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inflater").field("left", &self.left).finish_non_exhaustive()
    }
}

impl Inflater {
    /// For a message that may come to `most` bytes.
    pub fn new(most: usize) -> Self {
        Self { state: InflateState::new_boxed(DataFormat::Raw), left: most }
    }

    /// Inflates a piece of the message and hands what it gives to `sink`; `last`: the
    /// message ends with it.
    ///
    /// # Errors
    /// It is no deflated message, or one that comes to too much.
    pub fn inflate(&mut self, piece: &[u8], last: bool, sink: Sink<'_>) -> Result<(), Ended> {
        self.feed(piece, sink)?;
        if last { self.feed(&TAIL, sink) } else { Ok(()) }
    }

    fn feed(&mut self, mut piece: &[u8], sink: Sink<'_>) -> Result<(), Ended> {
        let mut out = [0; PIECE_BYTES];
        loop {
            let result = inflate(&mut self.state, piece, &mut out, MZFlush::None);
            piece = piece.get(result.bytes_consumed..).unwrap_or(&[]);
            let written = out.get(..result.bytes_written).unwrap_or(&[]);
            self.left = self.left.checked_sub(written.len()).ok_or_else(|| {
                Ended::Broken("decompressed message is larger than max_payload allows".to_owned())
            })?;
            if !written.is_empty() && !sink(written) {
                return Err(Ended::Ignored);
            }
            match result.status {
                Ok(MZStatus::Ok) if piece.is_empty() && written.len() < out.len() => return Ok(()),
                Ok(MZStatus::Ok) if result.bytes_consumed > 0 || !written.is_empty() => {}
                // It wants more than there is.
                Ok(MZStatus::StreamEnd) | Err(MZError::Buf) => return Ok(()),
                Ok(_) | Err(_) => {
                    return Err(Ended::Broken("flate: corrupt input".to_owned()));
                }
            }
        }
    }
}
