//! Bytes waiting for a connection.
//!
//! Owns one growing buffer for each connection that has something to send, and the pool the
//! buffers come from and go back to: an idle connection holds none. While the bytes of a large
//! read are looked at, large payloads in it are not copied: the outbox notes where they lie,
//! and they are written from there before the next read ([`Outbox::lend`]).
//!
//! # Invariants
//! - Bytes leave in the order they were appended.
//! - Nothing is lent once the bytes of a read have been handled.
//! - A buffer in the pool is empty and not larger than `OUTBOX_POOL_BYTES_MAX`.

use alloc::vec::Vec;

use crate::limits::{LENDING_READ_BYTES_MIN, OUTBOX_POOL_BYTES_MAX, OUTBOX_POOL_LEN};

/// One connection's bytes to send.
#[derive(Debug, Default)]
pub struct Outbox {
    buf: Vec<u8>,
    sent: usize,
    lent: Vec<Lent>,
    lent_bytes: usize,
}

/// Bytes that lie in what was read.
#[derive(Clone, Copy, Debug)]
struct Lent {
    /// They come before this byte of the buffer.
    at: usize,
    /// Where they begin in what was read.
    from: usize,
    len: usize,
}

impl Outbox {
    /// What is still to be sent, but for what is lent.
    pub fn pending(&self) -> &[u8] {
        self.buf.get(self.sent..).unwrap_or(&[])
    }

    /// Bytes still to be sent, with what is lent.
    pub fn len(&self) -> usize {
        self.buf.len() - self.sent + self.lent_bytes
    }

    /// Nothing to send?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The end of the buffer, to append to. Takes a buffer from the pool if it has none.
    #[inline]
    pub fn tail(&mut self, pool: &mut Pool) -> &mut Vec<u8> {
        if self.buf.capacity() == 0 {
            self.buf = pool.take();
        } else if self.sent > 0
            && self.sent >= self.buf.len() / 2
            && self.buf.len() == self.buf.capacity()
        {
            // About to grow: move the rest to the front instead.
            self.buf.drain(..self.sent);
            self.sent = 0;
        }
        &mut self.buf
    }

    /// May payloads be lent? Not where much waits from before: a socket that was full will
    /// hardly take them at once, and then they are copied after all.
    pub fn lends(&self) -> bool {
        self.sent == 0 && self.buf.len() < LENDING_READ_BYTES_MIN
    }

    /// Appends `len` bytes that begin at `from` in what was read. [`Self::settle`] must follow
    /// before that is read over.
    pub fn lend(&mut self, from: usize, len: usize) {
        self.lent.push(Lent { at: self.buf.len(), from, len });
        self.lent_bytes += len;
    }

    /// Is anything lent?
    pub fn has_lent(&self) -> bool {
        !self.lent.is_empty()
    }

    /// All that is to be sent, in order; `read` is what was read.
    pub fn pieces<'a>(&'a self, read: &'a [u8]) -> Vec<&'a [u8]> {
        let mut pieces = Vec::with_capacity(2 * self.lent.len() + 1);
        let mut begin = self.sent;
        for lent in &self.lent {
            pieces.push(self.buf.get(begin..lent.at).unwrap_or(&[]));
            pieces.push(read.get(lent.from..lent.from + lent.len).unwrap_or(&[]));
            begin = lent.at;
        }
        pieces.push(self.buf.get(begin..).unwrap_or(&[]));
        pieces
    }

    /// Copies what is lent, but for the first `count` bytes of all, which were sent.
    pub fn settle(&mut self, read: &[u8], mut count: usize, pool: &mut Pool) {
        if count < self.len() {
            let mut rest = pool.take();
            rest.reserve(self.len() - count);
            for piece in self.pieces(read) {
                let skipped = count.min(piece.len());
                count -= skipped;
                rest.extend_from_slice(piece.get(skipped..).unwrap_or(&[]));
            }
            self.clear(pool);
            self.buf = rest;
        } else {
            self.clear(pool);
        }
    }

    /// Takes `count` bytes off the front, and gives the buffer back once it is empty.
    pub fn advance(&mut self, count: usize, pool: &mut Pool) {
        self.sent = (self.sent + count).min(self.buf.len());
        if self.sent == self.buf.len() {
            self.clear(pool);
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self, pool: &mut Pool) {
        self.sent = 0;
        self.lent = Vec::new();
        self.lent_bytes = 0;
        pool.give(core::mem::take(&mut self.buf));
    }
}

/// Buffers free for use.
#[derive(Debug, Default)]
pub struct Pool {
    free: Vec<Vec<u8>>,
}

impl Pool {
    fn take(&mut self) -> Vec<u8> {
        self.free.pop().unwrap_or_else(|| Vec::with_capacity(512))
    }

    fn give(&mut self, mut buf: Vec<u8>) {
        if self.free.len() < OUTBOX_POOL_LEN
            && (1..=OUTBOX_POOL_BYTES_MAX).contains(&buf.capacity())
        {
            buf.clear();
            self.free.push(buf);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_order_and_an_empty_outbox_holds_no_buffer() {
        let mut pool = Pool::default();
        let mut outbox = Outbox::default();
        outbox.tail(&mut pool).extend_from_slice(b"hello");
        outbox.advance(2, &mut pool);
        outbox.tail(&mut pool).extend_from_slice(b" world");
        assert_eq!(outbox.pending(), b"llo world");
        outbox.advance(9, &mut pool);
        assert!(outbox.is_empty());
        assert_eq!(outbox.buf.capacity(), 0);
        assert_eq!(pool.free.len(), 1);
    }

    #[test]
    fn what_is_lent_leaves_in_its_place_and_is_copied_if_the_socket_was_full() {
        let read = b"..payload..other";
        let mut pool = Pool::default();
        for sent in 0..=30 {
            let mut outbox = Outbox::default();
            assert!(outbox.lends());
            outbox.tail(&mut pool).extend_from_slice(b"first ");
            outbox.lend(2, 7);
            outbox.tail(&mut pool).extend_from_slice(b" then ");
            outbox.lend(11, 5);
            outbox.tail(&mut pool).extend_from_slice(b" last");
            assert_eq!(outbox.len(), 29);
            assert!(outbox.has_lent() && outbox.lends());
            let all = outbox.pieces(read).concat();
            assert_eq!(all, b"first payload then other last");
            outbox.settle(read, sent, &mut pool);
            assert!(!outbox.has_lent());
            assert_eq!(outbox.pending(), all.get(sent..).unwrap_or_default());
            assert_eq!(outbox.len(), outbox.pending().len());
            outbox.tail(&mut pool).extend_from_slice(b"!");
            assert!(outbox.pending().ends_with(b"!"));
            outbox.clear(&mut pool);
        }
    }
}
