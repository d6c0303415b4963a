//! Clients: any operations, cut at any byte, by several connections, while time passes.
//!
//! An input is what clients say, with steps between: a zero byte and a letter.
//! `0` to `7` is who speaks next, `x` that the speaker leaves, `d` and `h` that it reads no
//! more or again, `t` and one more byte that time passes. Everything else is said as it is.

use sedge::id::Rng;
use sedge::time::Duration;

use crate::engine::fuzz;
use crate::world::{CLIENTS_MAX, World};

const WORDS: &[&[u8]] = &[
    b"PUB ",
    b"HPUB ",
    b"SUB ",
    b"UNSUB ",
    b"CONNECT {",
    b"}\r\n",
    b"PING\r\n",
    b"PONG\r\n",
    b"+OK\r\n",
    b"-ERR 'x'\r\n",
    b"INFO {}\r\n",
    b"MSG a 1 0\r\n\r\n",
    b"\r\n",
    b"a.b",
    b"a.*",
    b"a.>",
    b">",
    b"*",
    b"..",
    b" q ",
    b"_INBOX.1",
    b"NATS/1.0\r\n",
    b"\"verbose\":true,",
    b"\"pedantic\":true,",
    b"\"echo\":false,",
    b"\"headers\":true,",
    b"\"no_responders\":true,",
    b"\"protocol\":1,",
    b"\"user\":\"a\",",
    b"\"account\":\"A\",",
    b"\"lang\":null,",
    b"$JS.API.INFO",
    b"$JS.API.STREAM.CREATE.S",
    b"{\"name\":\"S\",\"subjects\":[\"a.>\"],\"storage\":\"memory\"}",
    b"$JS.edge.API.STREAM.NAMES",
    b"$JS.ACK.",
    b"$SYS.REQ.USER.INFO",
    b"_R_.x",
    b"\0t\x0a",
    b"\0t\x14",
    b"\x000",
    b"\x001",
    b"\x002",
    b"\x007",
    b"\0x",
    b"\0d",
    b"\0h",
];

/// What one step of an input asks for.
pub(crate) enum Step<'a> {
    Say(&'a [u8]),
    Do(u8, u8),
}

/// Cuts an input into its steps.
pub(crate) fn steps(input: &[u8]) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    let mut rest = input;
    while !rest.is_empty() {
        let zero = memchr::memchr(0, rest).unwrap_or(rest.len());
        if zero > 0 {
            steps.push(Step::Say(&rest[..zero]));
        }
        let Some(action) = rest.get(zero + 1) else { break };
        let (argument, used) = match (action, rest.get(zero + 2)) {
            (b't', Some(argument)) => (*argument, 3),
            _ => (0, 2),
        };
        steps.push(Step::Do(*action, argument));
        rest = rest.get(zero + used..).unwrap_or(&[]);
    }
    steps
}

/// How long a `t` lets pass: 1 ms to 9 hours.
pub(crate) fn span(argument: u8) -> Duration {
    Duration::from_millis(1 << (argument % 26))
}

/// Plays an input. With `cuts` what is said arrives in pieces.
fn play(input: &[u8], mut cuts: Option<Rng>) -> (World, Vec<u64>) {
    let mut world = World::new();
    let mut speaker = 0;
    for step in steps(input) {
        match step {
            Step::Say(bytes) => {
                let peer = world.client(speaker);
                match &mut cuts {
                    None => world.say(peer, bytes),
                    Some(rng) => {
                        let mut rest = bytes;
                        while !rest.is_empty() {
                            let most = if rng.below(2) == 0 { 2 } else { rest.len() };
                            let (piece, after) = rest.split_at(1 + rng.index(most.min(rest.len())));
                            world.say(peer, piece);
                            rest = after;
                        }
                    }
                }
                world.settle();
            }
            Step::Do(number @ b'0'..=b'7', _) => {
                speaker = usize::from(number - b'0') % CLIENTS_MAX;
            }
            Step::Do(b'x', _) => {
                let peer = world.client(speaker);
                world.leave(peer);
                world.settle();
            }
            Step::Do(what @ (b'd' | b'h'), _) => {
                let peer = world.client(speaker);
                world.deafen(peer, what == b'd');
                world.settle();
            }
            Step::Do(b't', argument) => world.pass(span(argument)),
            Step::Do(..) => {}
        }
    }
    let said = world.said();
    (world, said)
}

#[test]
fn any_operations_of_clients() {
    fuzz("client", WORDS, |input| {
        let (world, whole) = play(input, None);
        let behaviour = world.finish();
        let seed = input.iter().fold(1, |sum: u64, byte| sum.wrapping_mul(31) + u64::from(*byte));
        let (world, cut) = play(input, Some(Rng::new(seed)));
        assert_eq!(whole, cut, "the answers depend on where the bytes were cut");
        assert_eq!(world.finish(), behaviour);
        behaviour
    });
}
