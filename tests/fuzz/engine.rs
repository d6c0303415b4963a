//! How inputs are made, run, watched and made small.
//!
//! Owns the corpus of a target and the clock of its run. Does not know what an input means:
//! a target is a function from bytes to a [`Behaviour`], and a broken promise is a panic. An
//! input is kept when something happened that never happened before.
//!
//! # Invariants
//! - The inputs tried are a function of the seed and the corpus; only their number depends on
//!   the machine.
//! - What is kept in memory is bounded in number and length.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Once, mpsc};
use std::time::{Duration, Instant};

use sedge::id::Rng;

/// Inputs longer than this are cut.
const INPUT_BYTES_MAX: usize = 16 * 1024;
/// Inputs kept because they did something new.
const KEPT_MAX: usize = 4096;
/// One input that takes longer hangs.
const HANG: Duration = Duration::from_secs(20);
/// Longest search for a smaller input that fails too.
const SHRINK: Duration = Duration::from_secs(10);
/// Resident memory of this process with all its targets, in bytes.
const RESIDENT_MAX: u64 = 1024 * 1024 * 1024;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| {
        text.parse().unwrap_or_else(|_| panic!("{name}={text:?} is not a number"))
    })
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file kept for `target`, in the order of their names.
fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = root().join("tests/fuzz/corpus").join(target);
    let mut files: Vec<(PathBuf, Vec<u8>)> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("a folder can be listed").path())
        .map(|path| (path.clone(), std::fs::read(&path).expect("a file can be read")))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "nothing in {}", folder.display());
    files
}

/// Runs `target` on its corpus, then on changes of it until the time is up.
///
/// # Panics
/// With the smallest input found for which `run` panics, or one that hangs.
pub(crate) fn fuzz(target: &str, words: &[&[u8]], run: impl Fn(&[u8]) -> Behaviour) {
    let seed = number("SEDGE_SEED", 1);
    let time = Duration::from_secs(number("SEDGE_FUZZ_SECONDS", 5));
    silence_while_shrinking();
    let watch = Watch::start(target);
    let mut kept: Vec<Vec<u8>> = Vec::new();
    let mut known = BTreeSet::new();
    for (path, input) in corpus(target) {
        watch.begin(&input);
        let outcome = catch_unwind(AssertUnwindSafe(|| run(&input)));
        // What went wrong was printed where it did.
        let Ok(behaviour) = outcome else { panic!("{target}: fails on {}", path.display()) };
        known.extend(behaviour.kinds());
        kept.push(input);
    }
    let mut rng = Rng::new(seed);
    let mut makers = Mutator { rng: Rng::new(rng.next_u64()), words };
    let until = Instant::now() + time;
    let mut runs = 0_u64;
    while Instant::now() < until {
        let parent = &kept[rng.index(kept.len())];
        let other = &kept[rng.index(kept.len())];
        let input = makers.change(parent, other);
        watch.begin(&input);
        match catch_unwind(AssertUnwindSafe(|| run(&input))) {
            Ok(behaviour) => {
                let before = known.len();
                known.extend(behaviour.kinds());
                if known.len() > before && kept.len() < KEPT_MAX {
                    kept.push(input);
                }
            }
            Err(_) => report(target, seed, runs, input, &run),
        }
        runs += 1;
        if runs.is_multiple_of(64) {
            let resident = resident_bytes();
            assert!(resident < RESIDENT_MAX, "{target}: {resident} bytes resident");
        }
    }
    watch.end();
    println!(
        "{target}: seed {seed}, {runs} inputs, {} kept for {} kinds of behaviour",
        kept.len(),
        known.len()
    );
}

thread_local! {
    /// This thread looks for a smaller input: its panics are of no interest.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

fn silence_while_shrinking() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                usual(info);
            }
        }));
    });
}

/// Makes the input small, keeps it, and fails.
fn report(
    target: &str,
    seed: u64,
    runs: u64,
    input: Vec<u8>,
    run: &impl Fn(&[u8]) -> Behaviour,
) -> ! {
    QUIET.set(true);
    let input = shrink(input, &|input| catch_unwind(AssertUnwindSafe(|| run(input))).is_err());
    QUIET.set(false);
    // Once more aloud: how the small one fails.
    let _ = catch_unwind(AssertUnwindSafe(|| run(&input)));
    let folder = root().join("target/fuzz").join(target);
    let path = folder.join(format!("{}.bin", sedge::id::short_hash(&input)));
    let kept = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, &input));
    let place = match kept {
        Ok(()) => path.display().to_string(),
        Err(error) => format!("(not kept: {error})"),
    };
    panic!(
        "{target}: seed {seed}, input {runs} breaks a promise (see above); it is in {place}:\n{}",
        input.escape_ascii()
    );
}

/// Takes pieces away as long as it still fails.
fn shrink(mut input: Vec<u8>, fails: &impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let until = Instant::now() + SHRINK;
    let mut piece = input.len() / 2;
    while piece > 0 {
        let mut at = 0;
        while at < input.len() {
            if Instant::now() > until {
                return input;
            }
            let mut smaller = input.clone();
            smaller.drain(at..(at + piece).min(input.len()));
            if fails(&smaller) {
                input = smaller;
            } else {
                at += piece;
            }
        }
        piece /= 2;
    }
    input
}

/// Ends the process when one input takes too long: a thread cannot be ended.
struct Watch(mpsc::Sender<Option<Vec<u8>>>);

impl Watch {
    fn start(target: &str) -> Self {
        let (sender, inputs) = mpsc::channel::<Option<Vec<u8>>>();
        let target = target.to_owned();
        std::thread::spawn(move || {
            let mut running: Option<Vec<u8>> = None;
            loop {
                match inputs.recv_timeout(HANG) {
                    Ok(Some(input)) => running = Some(input),
                    Ok(None) | Err(mpsc::RecvTimeoutError::Disconnected) => return,
                    Err(mpsc::RecvTimeoutError::Timeout) => {
                        if let Some(input) = &running {
                            println!("{target}: hangs on:\n{}", input.escape_ascii());
                            std::process::exit(101);
                        }
                    }
                }
            }
        });
        Self(sender)
    }

    fn begin(&self, input: &[u8]) {
        let _ = self.0.send(Some(input.to_vec()));
    }

    fn end(&self) {
        let _ = self.0.send(None);
    }
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(1).and_then(|text| text.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

/// Makes new inputs of old ones.
struct Mutator<'a> {
    rng: Rng,
    words: &'a [&'a [u8]],
}

/// Numbers at which something ends.
const NUMBERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "2",
    "255",
    "256",
    "65535",
    "65536",
    "999999999",
    "1000000000",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "0.5",
    "00",
];

impl Mutator<'_> {
    fn change(&mut self, parent: &[u8], other: &[u8]) -> Vec<u8> {
        let mut input = parent.to_vec();
        for _ in 0..=self.rng.below(6) {
            self.change_once(&mut input, other);
        }
        input.truncate(INPUT_BYTES_MAX);
        input
    }

    fn change_once(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        let at = self.rng.index(input.len() + 1);
        match self.rng.below(14) {
            0 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << self.rng.below(8);
                }
            }
            1 => {
                let byte = self.byte();
                if let Some(place) = input.get_mut(at) {
                    *place = byte;
                }
            }
            2 => {
                let byte = self.byte();
                input.insert(at, byte);
            }
            3 | 4 => {
                let word = self.word();
                input.splice(at..at, word);
            }
            5 => {
                let word = self.word();
                let end = (at + word.len()).min(input.len());
                input.splice(at..end, word);
            }
            6 => {
                let end = self.end(at, input.len());
                input.drain(at..end);
            }
            7 => {
                let end = self.end(at, input.len());
                let piece = input[at..end].to_vec();
                let to = self.rng.index(input.len() + 1);
                for _ in 0..=self.rng.below(4) {
                    input.splice(to..to, piece.iter().copied());
                }
            }
            8 => {
                let start = self.rng.index(other.len() + 1);
                let end = self.end(start, other.len());
                input.splice(at..at, other[start..end].iter().copied());
            }
            9 => {
                let start = self.rng.index(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[start..]);
            }
            10 => self.swap_lines(input),
            11 | 12 => self.change_number(input, at),
            _ => {
                let byte = self.byte();
                let count = 1 << self.rng.below(13);
                input.splice(at..at, std::iter::repeat_n(byte, count));
            }
        }
        input.truncate(INPUT_BYTES_MAX);
    }

    /// The end of a piece that begins at `start`: mostly a short one.
    fn end(&mut self, start: usize, len: usize) -> usize {
        let most = if self.rng.below(4) == 0 { len } else { 32 };
        (start + 1 + self.rng.index(most)).min(len)
    }

    fn byte(&mut self) -> u8 {
        const COMMON: &[u8] = b" \t\r\n.*>\"{}[]:,0919az$_'\\\x00\x7f\xff";
        if self.rng.below(2) == 0 {
            COMMON[self.rng.index(COMMON.len())]
        } else {
            u8::try_from(self.rng.below(256)).unwrap_or(0)
        }
    }

    fn word(&mut self) -> Vec<u8> {
        if self.words.is_empty() || self.rng.below(8) == 0 {
            NUMBERS[self.rng.index(NUMBERS.len())].as_bytes().to_vec()
        } else {
            self.words[self.rng.index(self.words.len())].to_vec()
        }
    }

    /// Another number in the place of the next one after `at`.
    fn change_number(&mut self, input: &mut Vec<u8>, at: usize) {
        let Some(start) = input.iter().skip(at).position(u8::is_ascii_digit) else { return };
        let start = at + start;
        let len = input[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let new = NUMBERS[self.rng.index(NUMBERS.len())].bytes();
        input.splice(start..start + len, new);
    }

    fn swap_lines(&mut self, input: &mut Vec<u8>) {
        let mut lines: Vec<&[u8]> = input.split_inclusive(|byte| *byte == b'\n').collect();
        let (one, two) = (self.rng.index(lines.len()), self.rng.index(lines.len()));
        if one < lines.len() && two < lines.len() {
            lines.swap(one, two);
        }
        *input = lines.concat();
    }
}

/// What happened while an input ran: kinds of events, each with roughly how often, and which
/// followed which.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Behaviour {
    seen: BTreeMap<u64, u32>,
    last: u64,
}

impl Behaviour {
    /// Something of this kind happened. What may be anything does not belong in here.
    pub(crate) fn note(&mut self, what: &[u8]) {
        let event = digest(0, what);
        let step = self.last.rotate_left(7) ^ event;
        for kind in [event, step] {
            // A bound on what one input can make this hold.
            if self.seen.len() < 4096 || self.seen.contains_key(&kind) {
                *self.seen.entry(kind).or_default() += 1;
            }
        }
        self.last = event;
    }

    /// Each kind with the magnitude of its count.
    fn kinds(&self) -> impl Iterator<Item = (u64, u32)> {
        self.seen.iter().map(|(kind, count)| (*kind, count.ilog2()))
    }
}

/// A number for bytes; begin with 0, go on with the last result.
pub(crate) fn digest(so_far: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(so_far ^ 0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
