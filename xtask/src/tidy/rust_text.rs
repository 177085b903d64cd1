//! Rust source with comments and literals blanked out, so that a rule about
//! code does not trip over prose.
//!
//! Lines and columns stay as they were. It knows line, block and doc comments,
//! strings with escapes, raw and byte strings, and tells a character literal
//! from a lifetime; that is all the rules need.

/// The text with every comment and literal turned into spaces.
#[must_use]
pub fn code_of(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_or_comment_end(&chars, at);
        if end > at {
            code.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        } else {
            code.push(chars[at]);
            at += 1;
        }
    }
    code
}

/// The end of the comment or literal that starts at `at`, or `at` itself when
/// code stands there.
fn literal_or_comment_end(chars: &[char], at: usize) -> usize {
    let next = chars.get(at + 1);
    match chars[at] {
        '/' if next == Some(&'/') => find(chars, at, |rest| rest[0] == '\n').unwrap_or(chars.len()),
        '/' if next == Some(&'*') => block_comment_end(chars, at),
        '"' => string_end(chars, at + 1),
        '\'' => char_end(chars, at),
        'r' | 'b' | 'c' if at == 0 || !is_word(chars[at - 1]) => prefixed_string_end(chars, at),
        _ => at,
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn find(chars: &[char], from: usize, hit: impl Fn(&[char]) -> bool) -> Option<usize> {
    (from..chars.len()).find(|at| hit(&chars[*at..]))
}

fn block_comment_end(chars: &[char], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0);
    while at < chars.len() {
        if chars[at..].starts_with(&['/', '*']) {
            depth += 1;
            at += 2;
        } else if chars[at..].starts_with(&['*', '/']) {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    chars.len()
}

fn string_end(chars: &[char], mut at: usize) -> usize {
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// `'a'` and `'\n'` are literals, `'a` is a lifetime.
fn char_end(chars: &[char], start: usize) -> usize {
    match chars.get(start + 1) {
        Some('\\') => {
            find(chars, start + 3, |rest| rest[0] == '\'').map_or(chars.len(), |end| end + 1)
        }
        Some(_) if chars.get(start + 2) == Some(&'\'') => start + 3,
        _ => start,
    }
}

/// `b"..."`, `b'x'`, `r"..."`, `br##"..."##`; a raw identifier `r#type` is code.
fn prefixed_string_end(chars: &[char], start: usize) -> usize {
    let mut at = start;
    let mut raw = false;
    while let Some(c @ ('r' | 'b' | 'c')) = chars.get(at) {
        raw |= *c == 'r';
        at += 1;
    }
    if !raw {
        return match chars.get(at) {
            Some('"') => string_end(chars, at + 1),
            Some('\'') => {
                let end = char_end(chars, at);
                if end > at { end } else { start }
            }
            _ => start,
        };
    }
    let hashes = chars[at..].iter().take_while(|c| **c == '#').count();
    if chars.get(at + hashes) != Some(&'"') {
        return start;
    }
    let body = at + hashes + 1;
    let closes = |rest: &[char]| {
        rest[0] == '"' && rest[1..].iter().take_while(|c| **c == '#').count() >= hashes
    };
    find(chars, body, closes).map_or(chars.len(), |end| end + 1 + hashes)
}

/// Byte offsets and line numbers (from 1) at which `word` stands as a whole.
pub fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = (usize, usize)> + 'a {
    code.match_indices(word).filter_map(move |(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        let whole = !before.is_some_and(is_word) && !after.is_some_and(is_word);
        whole.then(|| (at, line_of(code, at)))
    })
}

/// The line (from 1) that a byte offset is on.
#[must_use]
pub fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn squeezed(text: &str) -> String {
        code_of(text).split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_go_and_lines_stay() {
        let text = "a // unsafe\n/* x /* y */ unsafe */ b\n/// doc\nc";
        assert_eq!(squeezed(text), "a b c");
        assert_eq!(code_of(text).lines().count(), 4);
    }

    #[test]
    fn literals_go() {
        assert_eq!(
            squeezed(r#"f("un\"safe", b"x", 'a', '\'', '"', b'"') + 1"#),
            "f( , , , , , ) + 1"
        );
        assert_eq!(squeezed(r###"g(r"\", r#"a " b"#, br##"c"# d"##, c"e")"###), "g( , , , )");
        assert_eq!(squeezed("'\\u{1F600}' x"), "x");
    }

    #[test]
    fn lifetimes_and_raw_identifiers_are_code() {
        assert_eq!(
            squeezed("fn f<'a>(x: &'a str, r#type: u8) -> &'static str"),
            "fn f<'a>(x: &'a str, r#type: u8) -> &'static str"
        );
        assert_eq!(squeezed("for b in bar { r += b; c }"), "for b in bar { r += b; c }");
    }

    #[test]
    fn unterminated_text_ends_at_the_end() {
        for text in ["\"abc", "/* abc", "r#\"abc", "'\\", "// abc", "b\"\\"] {
            assert!(code_of(text).chars().all(|c| c == ' ' || c == '\''), "{text}");
        }
    }

    #[test]
    fn words_are_whole() {
        let found: Vec<_> =
            words("unsafe_code\nunsafe {}\n(unsafe)", "unsafe").map(|(_, line)| line).collect();
        assert_eq!(found, [2, 3]);
    }
}
