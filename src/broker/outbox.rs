//! Bytes waiting for a connection.
//!
//! Owns one growing buffer for each connection that has something to send, and the pool the
//! buffers come from and go back to: an idle connection holds none.
//!
//! # Invariants
//! - Bytes leave in the order they were appended.
//! - A buffer in the pool is empty and not larger than `OUTBOX_POOL_BYTES_MAX`.

use alloc::vec::Vec;

use crate::limits::{OUTBOX_POOL_BYTES_MAX, OUTBOX_POOL_LEN};

/// One connection's bytes to send.
#[derive(Debug, Default)]
pub struct Outbox {
    buf: Vec<u8>,
    sent: usize,
}

impl Outbox {
    /// What is still to be sent.
    pub fn pending(&self) -> &[u8] {
        self.buf.get(self.sent..).unwrap_or(&[])
    }

    /// Length of [`Self::pending`].
    pub fn len(&self) -> usize {
        self.buf.len() - self.sent
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
}
