//! The link to a hub: whatever the hub says, while local clients go on.
//!
//! Inputs are those of the clients' target, and `8` lets the hub speak.

use sedge::proto::leaf::{LeafBounds, Parsed, parse};

use crate::client::{Step, span, steps};
use crate::engine::{Behaviour, fuzz};
use crate::world::World;

const WORDS: &[&[u8]] = &[
    b"INFO {",
    b"}\r\n",
    b"\"server_id\":\"NHUB\",",
    b"\"server_name\":\"hub\",",
    b"\"version\":\"2.15.1\",",
    b"\"nonce\":\"abc\",",
    b"\"headers\":true,",
    b"\"jetstream\":true,",
    b"\"domain\":\"hub\",",
    b"\"domain\":\"edge\",",
    b"\"cluster\":\"c\",",
    b"\"tls_required\":true,",
    b"\"auth_required\":true,",
    b"\"leafnode_urls\":[\"127.0.0.1:1\"],",
    b"\"connect_info\":true,",
    b"\"compression\":\"s2_fast\",",
    b"\"import\":{\"allow\":[\"a.>\"]},",
    b"\"export\":{\"deny\":[\"a.>\"]},",
    b"\"client_id\":5,",
    b"\"remote_account\":\"A\",",
    b"LS+ ",
    b"LS- ",
    b"LMSG ",
    b"HMSG ",
    b"PING\r\n",
    b"PONG\r\n",
    b"+OK\r\n",
    b"-ERR 'Authorization Violation'\r\n",
    b"-ERR 'Loop detected'\r\n",
    b"CONNECT {}\r\n",
    b"\r\n",
    b"a.b ",
    b"a.* ",
    b"> ",
    b"q 1 ",
    b"+ r q ",
    b"| q1 q2 ",
    b"$LDS.x",
    b"$JS.edge.API.STREAM.INFO.S",
    b"$JS.API.CONSUMER.CREATE.S",
    b"$GR.x",
    b"NATS/1.0\r\n\r\n",
    b"\x008",
    b"\x000",
    b"\x001",
    b"\0t\x0a",
    b"\0t\x0d",
    b"\0x",
    b"SUB a.> 1\r\n",
    b"PUB a.b 2\r\nhi\r\n",
];

fn play(input: &[u8]) -> Behaviour {
    let mut world = World::new();
    let mut speaker = 8;
    for step in steps(input) {
        let peer = if speaker == 8 { world.hub() } else { Some(world.client(speaker)) };
        match (step, peer) {
            (Step::Say(bytes), Some(peer)) => {
                world.say(peer, bytes);
                world.settle();
            }
            (Step::Do(number @ b'0'..=b'8', _), _) => speaker = usize::from(number - b'0') % 9,
            (Step::Do(b'x', _), Some(peer)) => {
                world.leave(peer);
                world.settle();
            }
            (Step::Do(what @ (b'd' | b'h'), _), Some(peer)) => {
                world.deafen(peer, what == b'd');
                world.settle();
            }
            (Step::Do(b't', argument), _) => world.pass(span(argument)),
            _ => {}
        }
    }
    world.finish()
}

/// The operations at the front of `bytes`, as text, and the error that ended them.
fn operations(bytes: &[u8], bounds: &LeafBounds) -> Vec<String> {
    let mut seen = Vec::new();
    let mut rest = bytes;
    loop {
        match parse(rest, bounds) {
            Ok(Parsed::Op(op, used)) => {
                assert!(used > 0 && used <= rest.len());
                seen.push(format!("{op:?}"));
                rest = &rest[used..];
            }
            Ok(Parsed::Incomplete { need }) => {
                assert!(need == 0 || need > rest.len(), "it asks for what it has");
                return seen;
            }
            Err(error) => {
                seen.push(format!("{error:?}"));
                return seen;
            }
        }
    }
}

#[test]
fn anything_a_hub_says() {
    let bounds = LeafBounds::new(256, 4096);
    fuzz("leaf", WORDS, |input| {
        let whole = operations(input, &bounds);
        // Each beginning gives a beginning of the same, or the error a little later.
        for cut in [input.len() / 3, input.len() / 2, input.len().saturating_sub(1)] {
            let front = operations(&input[..cut], &bounds);
            let same = front.iter().zip(&whole).filter(|(one, two)| one == two).count();
            assert_eq!(same, front.len(), "cut at {cut}: {front:?} is no beginning of {whole:?}");
        }
        play(input)
    });
}
