//! Reads what a test executable prints: libtest's counts, and the
//! `skipped: ...` lines of tests that found a capability lacking.
//!
//! A skipped test is `ok` to libtest, so the counts are corrected here: it is
//! skipped, not passed. Executables run with `--show-output`, which puts what
//! a test printed under `---- NAME stdout ----`, and so names the test that
//! skipped.

use std::collections::BTreeSet;

/// What one executable (or all doctests) came to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Counts {
    pub passed: u32,
    pub failed: u32,
    pub skipped: u32,
}

impl Counts {
    /// Adds another executable's counts.
    pub fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// What a `test result:` line says.
#[derive(Debug, Clone, Copy)]
struct Tally {
    passed: u32,
    failed: u32,
    ignored: u32,
}

/// Takes an executable's output line by line.
#[derive(Debug, Default)]
pub struct Parser {
    /// One for each `running N tests`; doctests print several.
    runs: Vec<Option<Tally>>,
    section: Option<String>,
    skipped_tests: BTreeSet<String>,
    unnamed_skips: u32,
    unfinished: Option<String>,
    failed_tests: BTreeSet<String>,
    skip_lines: BTreeSet<String>,
}

const MARK: &str = "skipped: ";

impl Parser {
    /// Reads one line, of either stream.
    pub fn line(&mut self, line: &str) {
        let line = line.trim_end();
        if let Some(name) = section_name(line) {
            self.section = Some(name.to_owned());
        } else if line == "successes:" || line == "failures:" {
            self.section = None;
        } else if self.section.is_none() {
            // What a test printed may look like libtest's own lines.
            self.own_line(line);
        }
        if let Some(at) = line.find(MARK).filter(|at| starts_a_word(line, *at)) {
            self.skip(line[at + MARK.len()..].trim());
        }
    }

    fn own_line(&mut self, line: &str) {
        if line.starts_with("running ") && (line.ends_with(" test") || line.ends_with(" tests")) {
            self.runs.push(None);
        } else if let Some(rest) = line.strip_prefix("test result: ") {
            let tally = Tally {
                passed: number_before(rest, " passed"),
                failed: number_before(rest, " failed"),
                ignored: number_before(rest, " ignored"),
            };
            if let Some(run) = self.runs.last_mut() {
                *run = Some(tally);
            }
        } else if let Some(rest) = line.strip_prefix("test ") {
            self.verdict(rest);
        }
    }

    fn verdict(&mut self, rest: &str) {
        // One test at a time, libtest prints the name before it starts.
        self.unfinished = rest.strip_suffix(" ...").map(str::to_owned);
        let Some((name, verdict)) = rest.split_once(" ... ") else {
            return;
        };
        if verdict.starts_with("FAILED") {
            self.failed_tests.insert(name.to_owned());
        } else if verdict.starts_with("ignored") {
            self.skip_lines.insert(format!("{name}: {verdict}"));
        }
    }

    fn skip(&mut self, reason: &str) {
        if let Some(name) = &self.section {
            self.skipped_tests.insert(name.clone());
            self.skip_lines.insert(format!("{name}: {reason}"));
        } else if self.skip_lines.insert(reason.to_owned()) {
            self.unnamed_skips += 1;
        }
    }

    /// What tests were skipped and why, sorted, each once.
    pub fn skip_lines(&self) -> impl Iterator<Item = &str> {
        self.skip_lines.iter().map(String::as_str)
    }

    /// The tests that failed.
    pub fn failed_tests(&self) -> impl Iterator<Item = &str> {
        self.failed_tests.iter().map(String::as_str)
    }

    /// The test that was running when the output ended.
    #[must_use]
    pub fn unfinished(&self) -> Option<&str> {
        self.unfinished.as_deref()
    }

    /// The counts, given whether the executable itself ended well.
    ///
    /// A test that skipped and then failed is failed. An executable that ended
    /// badly has at least one failure, and so has one that announced tests but
    /// printed no result (a test ended the process). One that never spoke
    /// libtest's language has a harness of its own and is one test.
    #[must_use]
    pub fn counts(&self, ended_well: bool) -> Counts {
        let skipped_ok =
            self.skipped_tests.difference(&self.failed_tests).count() as u32 + self.unnamed_skips;
        let tallies: Vec<Tally> = self.runs.iter().copied().flatten().collect();
        let sum = |of: fn(&Tally) -> u32| tallies.iter().map(of).sum::<u32>();
        let mut counts = Counts {
            passed: sum(|t| t.passed).saturating_sub(skipped_ok),
            failed: sum(|t| t.failed),
            skipped: sum(|t| t.ignored) + skipped_ok,
        };
        let own_harness = self.runs.is_empty();
        if own_harness && ended_well && skipped_ok == 0 {
            counts.passed = 1;
        }
        let cut_short = tallies.len() < self.runs.len();
        if counts.failed == 0 && (!ended_well || cut_short) {
            counts.failed = 1;
        }
        counts
    }
}

fn section_name(line: &str) -> Option<&str> {
    line.strip_prefix("---- ")?.strip_suffix(" ----")?.strip_suffix(" stdout")
}

fn starts_a_word(line: &str, at: usize) -> bool {
    !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '"' || c == '`')
}

fn number_before(text: &str, word: &str) -> u32 {
    text.split(word)
        .next()
        .filter(|before| before.len() < text.len())
        .and_then(|before| before.rsplit(|c: char| !c.is_ascii_digit()).next())
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Parser {
        let mut parser = Parser::default();
        text.lines().for_each(|line| parser.line(line));
        parser
    }

    #[test]
    fn plain_counts() {
        let parser = parse(
            "\nrunning 4 tests\ntest a ... ok\ntest b ... FAILED\ntest c ... ignored, slow\ntest d ... ok\n\n\
             test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.10s\n",
        );
        assert_eq!(parser.counts(false), Counts { passed: 2, failed: 1, skipped: 1 });
        assert_eq!(parser.failed_tests().collect::<Vec<_>>(), ["b"]);
        assert_eq!(parser.skip_lines().collect::<Vec<_>>(), ["c: ignored, slow"]);
    }

    #[test]
    fn several_results_add_up() {
        let parser = parse(
            "running 1 test\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n\
             running 12 tests\ntest result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n",
        );
        assert_eq!(parser.counts(true), Counts { passed: 13, failed: 0, skipped: 0 });
    }

    #[test]
    fn skipped_tests_are_not_passed_ones() {
        let parser = parse(
            "running 3 tests\ntest veth::one ... ok\ntest veth::two ... ok\ntest three ... ok\n\nsuccesses:\n\n\
             ---- veth::one stdout ----\nskipped: needs CAP_NET_ADMIN\nskipped: needs CAP_BPF\n\n\
             ---- veth::two stdout ----\n[lab] skipped: needs CAP_NET_ADMIN\n\n\nsuccesses:\n    veth::one\n\n\
             test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n",
        );
        assert_eq!(parser.counts(true), Counts { passed: 1, failed: 0, skipped: 2 });
        assert_eq!(parser.skip_lines().count(), 3);
        assert!(parser.skip_lines().any(|line| line == "veth::two: needs CAP_NET_ADMIN"));
    }

    #[test]
    fn a_skip_line_outside_a_section_counts_once() {
        let parser = parse(
            "running 2 tests\ntest a ... skipped: no veth\nok\ntest b ... ok\nskipped: no veth\n\
             test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n",
        );
        assert_eq!(parser.counts(true), Counts { passed: 1, failed: 0, skipped: 1 });
    }

    #[test]
    fn a_test_that_skips_and_fails_is_failed() {
        let parser = parse(
            "running 1 test\ntest a ... FAILED\n\nfailures:\n\n---- a stdout ----\nskipped: no veth\n\
             thread 'a' panicked: VELTRIX_TEST_REQUIRE is set\n\n\
             test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n",
        );
        assert_eq!(parser.counts(false), Counts { passed: 0, failed: 1, skipped: 0 });
    }

    #[test]
    fn dying_counts_as_a_failure() {
        let killed = parse("running 2 tests\ntest a ... ok\n");
        assert_eq!(killed.counts(false), Counts { passed: 0, failed: 1, skipped: 0 });
        assert_eq!(parse("running 2 tests\ntest a ... ok\ntest b ... ").unfinished(), Some("b"));
        assert_eq!(killed.unfinished(), None);
        let left_early = parse("running 2 tests\ntest a ... ok\n");
        assert_eq!(left_early.counts(true).failed, 1, "exit status 0 without a result");
        let after_the_result = parse(
            "running 1 test\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n",
        );
        assert_eq!(after_the_result.counts(false), Counts { passed: 1, failed: 1, skipped: 0 });
    }

    #[test]
    fn what_a_test_prints_is_not_taken_for_a_result() {
        let parser = parse(
            "running 1 test\ntest a ... ok\n\nsuccesses:\n\n---- a stdout ----\nrunning 9 tests\n\
             test b ... FAILED\ntest result: ok. 9 passed; 0 failed\n\n\nsuccesses:\n    a\n\n\
             test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n",
        );
        assert_eq!(parser.counts(true), Counts { passed: 1, failed: 0, skipped: 0 });
        assert_eq!(parser.failed_tests().count(), 0);
    }

    #[test]
    fn own_harness_is_one_test() {
        assert_eq!(parse("all good\n").counts(true), Counts { passed: 1, failed: 0, skipped: 0 });
        assert_eq!(parse("bad\n").counts(false), Counts { passed: 0, failed: 1, skipped: 0 });
        assert_eq!(
            parse("skipped: no veth\n").counts(true),
            Counts { passed: 0, failed: 0, skipped: 1 }
        );
    }

    #[test]
    fn words_that_merely_end_alike_are_no_skips() {
        let parser = parse("unskipped: x\nexpected \"skipped: y\"\n");
        assert_eq!(parser.skip_lines().count(), 0);
    }
}
