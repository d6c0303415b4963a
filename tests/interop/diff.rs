//! A unified diff of two transcripts, whole: a transcript is short and its start explains its end.

/// Lines of `left` marked `-`, lines of `right` marked `+`, common lines unmarked.
pub(crate) fn unified(left: &[String], right: &[String]) -> String {
    // Longest common subsequence, filled from the end.
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
    let mut out = String::new();
    let mut line = |mark: char, text: &str| {
        out.push(mark);
        out.push_str(text);
        out.push('\n');
    };
    while l < left.len() || r < right.len() {
        if l < left.len() && r < right.len() && left[l] == right[r] {
            line(' ', &left[l]);
            l += 1;
            r += 1;
        } else if r == right.len()
            || (l < left.len() && common[(l + 1) * width + r] >= common[l * width + r + 1])
        {
            line('-', &left[l]);
            l += 1;
        } else {
            line('+', &right[r]);
            r += 1;
        }
    }
    out
}
