//! Commands in the README are commands that the program knows.

use std::path::Path;
use std::process::Command;

/// The commands of each ```sh block: lines that begin with `heirloom `, with lines that end in `\`
/// joined to the next.
fn commands(markdown: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut in_shell = false;
    let joined = markdown.replace("\\\n", " ");
    for line in joined.lines() {
        match line.trim() {
            "```sh" => in_shell = true,
            "```" => in_shell = false,
            line if in_shell && line.starts_with("heirloom ") => commands.push(line.to_owned()),
            _ => (),
        }
    }
    commands
}

/// The arguments of a command, up to a comment, a pipe or a redirection. Quotes group words.
fn arguments(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for c in command.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, '|' | '<' | '>' | '#' | '&' | ';') => break,
            (None, c) if c.is_whitespace() => words.push(String::new()),
            (_, c) => words.last_mut().expect("begins with a word").push(c),
        }
    }
    words.into_iter().skip(1).filter(|word| !word.is_empty()).collect()
}

#[test]
fn commands_are_found_and_taken_apart_as_a_shell_does() {
    let text = "```sh\nheirloom plan a.toml \\\n  --set 'a.b = 1' | head\n$ ls\n```\nheirloom no\n";
    let found = commands(text);
    assert_eq!(found.len(), 1);
    assert_eq!(arguments(&found[0]), ["plan", "a.toml", "--set", "a.b = 1"]);
}

#[test]
fn every_command_in_the_readme_parses() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let Ok(text) = std::fs::read_to_string(&readme) else {
        eprintln!("skipped: there is no README.md");
        return;
    };
    let commands = commands(&text);
    assert!(!commands.is_empty(), "the README shows no command");
    for command in commands {
        let mut arguments = arguments(&command);
        // Help is asked for last, so everything before it is parsed, and nothing is done.
        arguments.push("--help".to_owned());
        let output =
            Command::new(env!("CARGO_BIN_EXE_heirloom")).args(&arguments).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}\n{stderr}");
    }
}
