//! Leaves what unwinds the stack out of programs that never unwind.
//!
//! The profiles `release` and `board` end the process on a panic (`panic = "abort"`), yet the
//! compiler describes each stack frame for whoever would unwind it: 7 % of the program. Its
//! own switch for that, `-C force-unwind-tables=no`, can only be given to all profiles alike,
//! and tests do unwind. So the linker drops the tables, where the profile is one of ours.

use std::path::Path;

/// Profiles with `panic = "abort"`.
const ABORTING: [&str; 2] = ["release", "board"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=targets/no-unwind.ld");
    let var = |name: &str| std::env::var(name).unwrap_or_default();
    // `target/[triple/]<profile>/build/...`: no variable has the profile's name.
    let is_aborting = Path::new(&var("OUT_DIR"))
        .components()
        .any(|part| part.as_os_str().to_str().is_some_and(|name| ABORTING.contains(&name)));
    if is_aborting && var("CARGO_CFG_TARGET_OS") == "linux" {
        let script = Path::new(&var("CARGO_MANIFEST_DIR")).join("targets/no-unwind.ld");
        println!("cargo::rustc-link-arg-bin=sedge=-Wl,-T,{}", script.display());
    }
}
