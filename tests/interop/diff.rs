//! A unified diff of two transcripts.

use std::fmt::Write as _;

/// Common lines shown before and after a difference.
const CONTEXT: usize = 6;

/// Lines of `left` marked `-`, lines of `right` marked `+`, common lines unmarked.
///
/// A gap is marked by the last step of the scenario inside it: what the lines after it answer.
pub(crate) fn unified(left: &[String], right: &[String]) -> String {
    let lines = marked(left, right);
    let near = |at: usize| {
        let around = &lines[at.saturating_sub(CONTEXT)..lines.len().min(at + CONTEXT + 1)];
        around.iter().any(|(mark, _)| *mark != ' ')
    };
    let mut out = String::new();
    let mut skipped_step = None;
    for (at, (mark, line)) in lines.iter().enumerate() {
        if near(at) {
            if let Some(step) = skipped_step.take() {
                let _ = writeln!(out, "@@ {step}");
            }
            let _ = writeln!(out, "{mark}{line}");
        } else if !line.starts_with(' ') {
            skipped_step = Some(line);
        }
    }
    out
}

/// Every line of both, in order, by the longest common subsequence.
fn marked<'a>(left: &'a [String], right: &'a [String]) -> Vec<(char, &'a str)> {
    // Filled from the end.
    let width = right.len() + 1;
    let mut common = vec![0_u32; (left.len() + 1) * width];
    for l in (0..left.len()).rev() {
        for r in (0..right.len()).rev() {
            common[l * width + r] = if left[l] == right[r] {
                common[(l + 1) * width + r + 1] + 1
            } else {
                common[(l + 1) * width + r].max(common[l * width + r + 1])
            };
        }
    }
    let (mut l, mut r) = (0, 0);
    let mut lines = Vec::with_capacity(left.len() + right.len());
    while l < left.len() || r < right.len() {
        if l < left.len() && r < right.len() && left[l] == right[r] {
            lines.push((' ', left[l].as_str()));
            l += 1;
            r += 1;
        } else if r == right.len()
            || (l < left.len() && common[(l + 1) * width + r] >= common[l * width + r + 1])
        {
            lines.push(('-', left[l].as_str()));
            l += 1;
        } else {
            lines.push(('+', right[r].as_str()));
            r += 1;
        }
    }
    lines
}
