//! How the linker lays out the program: `targets/layout.ld`, with the list `targets/idle.txt`.
//!
//! The profile `release` ends the process on a panic (`panic = "abort"`), yet the compiler
//! describes each stack frame for whoever would unwind it: 7 % of the program. Its own switch
//! for that, `-C force-unwind-tables=no`, can only be given to all profiles alike, and tests
//! do unwind. So the linker drops the tables, in this profile alone. It also puts what an idle
//! server runs in one place, and, where it can, keeps one copy of functions that came out
//! alike.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=targets/layout.ld");
    println!("cargo::rerun-if-changed=targets/idle.txt");
    let out_dir = PathBuf::from(var("OUT_DIR"));
    if profile(&out_dir) != "release" || var("CARGO_CFG_TARGET_OS") != "linux" {
        return;
    }
    let targets = PathBuf::from(var("CARGO_MANIFEST_DIR")).join("targets");
    let script = out_dir.join("layout.ld");
    std::fs::write(&script, layout(&targets)).expect("cargo gives a folder that can be written");
    println!("cargo::rustc-link-arg-bin=sedge=-Wl,-T,{}", script.display());
    // Nothing here compares the addresses of functions, and Rust promises none.
    if linked(FOLD, &out_dir).is_some() {
        println!("cargo::rustc-link-arg-bin=sedge={FOLD}");
    }
    let runs = |probe: PathBuf| Command::new(probe).status().is_ok_and(|status| status.success());
    if var("HOST") == var("TARGET") && linked(PACK, &out_dir).is_some_and(runs) {
        println!("cargo::rustc-link-arg-bin=sedge={PACK}");
    }
}

/// `layout.ld` with the names of `idle.txt` in it.
fn layout(targets: &Path) -> String {
    let read = |name| std::fs::read_to_string(targets.join(name)).expect("part of the sources");
    let mut list = String::new();
    for name in read("idle.txt").lines().filter(|line| !line.starts_with('#')) {
        list.push_str("*(.text.");
        list.push_str(name);
        list.push_str(")\n");
    }
    read("layout.ld").replace("/* idle.txt */", &list)
}

/// LLD, which rustc brings for x86-64, knows this; zig's command line and GNU ld do not.
const FOLD: &str = "-Wl,--icf=all";

/// A list of the places that the loader has to adjust, packed: 117 KB less. The
/// C library must know it, glibc since 2.36; so it is used where this very machine runs what
/// it made. A build for other machines is one for another target.
const PACK: &str = "-Wl,-z,pack-relative-relocs";

/// The smallest program, linked as this build is and with `flag`; `None` if the linker does not
/// know it, which costs size and nothing else.
fn linked(flag: &str, out_dir: &Path) -> Option<PathBuf> {
    let source = out_dir.join("probe.rs");
    let program = out_dir.join("probe");
    std::fs::write(&source, "fn main() {}").ok()?;
    let mut rustc = Command::new(var("RUSTC"));
    rustc.arg("--target").arg(var("TARGET")).arg("--crate-name=probe").arg("-o");
    rustc.arg(&program).arg(format!("-Clink-arg={flag}"));
    let linker = var("RUSTC_LINKER");
    if !linker.is_empty() {
        let mut option = OsString::from("-Clinker=");
        option.push(linker);
        rustc.arg(option);
    }
    let flags = var("CARGO_ENCODED_RUSTFLAGS");
    let flags = flags.to_str().unwrap_or_default();
    rustc.args(flags.split('\x1f').filter(|flag| !flag.is_empty()));
    rustc.arg(source);
    rustc.output().is_ok_and(|output| output.status.success()).then_some(program)
}

fn var(name: &str) -> OsString {
    std::env::var_os(name).unwrap_or_default()
}

/// Its folder, `target/[triple/]<profile>/build/...`: no variable has the name. Where cargo
/// lays that out otherwise nothing is lost but size.
fn profile(out_dir: &Path) -> OsString {
    let parts: Vec<_> = out_dir.iter().collect();
    let build = parts.iter().rposition(|&part| part == "build").unwrap_or(0);
    build
        .checked_sub(1)
        .and_then(|at| parts.get(at))
        .map_or_else(OsString::new, |&part| part.into())
}
