//! Payloads that are written from where they were read.
//!
//! Owns when that is done. The outbox knows what is lent ([`super::outbox`]); the shell writes.
//! Of a message of some kilobytes, copying it into the outboxes of its receivers is most of
//! what the broker itself does. A large read is therefore written to its receivers while it
//! still lies in the buffer.
//!
//! # Invariants
//! - When [`Broker::receive_lending`] returns, nothing is lent any more.

use super::Broker;
use crate::id::ConnId;
use crate::limits::{LENDING_READ_BYTES_MIN, LENT_BYTES_MIN};
use crate::time::Now;

impl Broker {
    /// As [`Broker::receive`]. `write` is called for each connection that is to get payloads
    /// from `bytes`, with all that waits for it in pieces, and returns how many bytes the
    /// socket took; 0 has everything copied and kept.
    pub fn receive_lending(
        &mut self,
        now: Now,
        id: ConnId,
        bytes: &[u8],
        write: &mut dyn FnMut(ConnId, &[&[u8]]) -> usize,
    ) {
        // A trace line is made of what waits.
        if bytes.len() < LENDING_READ_BYTES_MIN || self.is_tracing() {
            return self.receive(now, id, bytes);
        }
        let range = bytes.as_ptr_range();
        self.core.lender = Some((range.start.addr(), range.end.addr()));
        self.receive(now, id, bytes);
        self.core.lender = None;
        while let Some(index) = self.core.borrowers.pop() {
            let Some(conn) = self.core.conn_mut(index).filter(|conn| conn.outbox.has_lent()) else {
                continue;
            };
            let count = write(conn.id, &conn.outbox.pieces(bytes));
            self.core.settle(index, bytes, count);
        }
    }
}

/// Where in what was read a payload begins, if it lies there and is worth lending.
pub(super) fn lies_in((start, end): (usize, usize), payload: &[u8]) -> Option<usize> {
    let range = payload.as_ptr_range();
    let inside = range.start.addr() >= start && range.end.addr() <= end;
    (inside && payload.len() >= LENT_BYTES_MIN).then(|| range.start.addr() - start)
}

#[cfg(test)]
mod tests {
    use alloc::string::String;
    use alloc::vec::Vec;
    use alloc::{format, vec};
    use core::fmt::Write as _;

    use super::*;
    use crate::broker::testing::World;

    /// Messages of 3 KB, with a short one in between now and then.
    fn messages(count: usize) -> (String, String) {
        let (mut published, mut delivered) = (String::new(), String::new());
        for at in 0..count {
            let len = if at % 5 == 4 { 11 } else { 3000 + at };
            let payload = format!("{at:-<len$}");
            let _ = write!(published, "PUB a {len}\r\n{payload}\r\n");
            let _ = write!(delivered, "MSG a 1 {len}\r\n{payload}\r\n");
        }
        (published, delivered)
    }

    #[test]
    fn large_payloads_arrive_whole_and_in_order_however_little_a_socket_takes() {
        let (published, delivered) = messages(40);
        for took in [0, 1, 10, 3000, 50_000, 100_000, usize::MAX] {
            let mut world = World::new(vec![], false);
            let clients: Vec<ConnId> = (0..3).map(|_| world.client("$G").unwrap()).collect();
            let (from, to) = (clients[0], [clients[1], clients[2]]);
            for id in to {
                world.says(id, "SUB a 1\r\n");
                world.sent(id);
            }
            let mut heard = vec![String::new(), String::new()];
            let mut asked = 0;
            let mut write = |id: ConnId, pieces: &[&[u8]]| {
                asked += 1;
                let all = pieces.concat();
                let count = took.min(all.len());
                let place = to.iter().position(|to| *to == id).expect("a receiver");
                heard[place] = String::from_utf8(all[..count].to_vec()).unwrap();
                count
            };
            world.broker.receive_lending(world.now, from, published.as_bytes(), &mut write);
            assert_eq!(asked, 2);
            for (id, mut heard) in to.into_iter().zip(heard) {
                heard.push_str(&world.sent(id));
                assert!(heard == delivered, "{took}");
            }
        }
    }

    #[test]
    fn what_came_in_two_reads_or_is_short_is_copied() {
        let mut world = World::new(vec![], false);
        let (from, to) = (world.client("$G").unwrap(), world.client("$G").unwrap());
        world.says(to, "SUB a 1\r\n");
        world.sent(to);
        let mut write = |_: ConnId, _: &[&[u8]]| panic!("nothing is lent");
        let long = "x".repeat(70_000);
        let read = format!("PUB a 70000\r\n{long}");
        world.broker.receive_lending(world.now, from, read.as_bytes(), &mut write);
        let short = format!("PUB a {}\r\n{}\r\n", 1000, "y".repeat(1000)).repeat(70);
        let read = format!("\r\n{short}");
        world.broker.receive_lending(world.now, from, read.as_bytes(), &mut write);
        let short = short.replace("PUB a ", "MSG a 1 ");
        assert!(world.sent(to) == format!("MSG a 1 70000\r\n{long}\r\n{short}"));
    }
}
