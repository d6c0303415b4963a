//! How the linker lays out the program: `targets/layout.ld`.
//!
//! The profile `release` ends the process on a panic (`panic = "abort"`), yet the compiler
//! describes each stack frame for whoever would unwind it: 7 % of the program. Its own switch
//! for that, `-C force-unwind-tables=no`, can only be given to all profiles alike, and tests
//! do unwind. So the linker drops the tables, in this profile alone. It also puts what an idle
//! server runs in one place.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=targets/layout.ld");
    let var = |name: &str| std::env::var_os(name).unwrap_or_default();
    let profile = profile(&PathBuf::from(var("OUT_DIR")));
    if profile == "release" && var("CARGO_CFG_TARGET_OS") == "linux" {
        let script = PathBuf::from(var("CARGO_MANIFEST_DIR")).join("targets/layout.ld");
        println!("cargo::rustc-link-arg-bin=sedge=-Wl,-T,{}", script.display());
    }
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
