//! The documents as a reader takes them: their commands, code spans, links and headings. Knows
//! Markdown and a little shell; must not know what is right.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// One file, and its path from the root.
pub struct Document {
    pub path: String,
    pub text: String,
}

/// Every document that people read.
pub fn all() -> Vec<Document> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let below = ["docs", "deploy", "docker"].map(|folder| root.join(folder));
    let mut paths: Vec<PathBuf> = fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .chain(below.iter().flat_map(|folder| {
            walkdir::WalkDir::new(folder).into_iter().map(|entry| entry.unwrap().into_path())
        }))
        .filter(|path| path.extension().is_some_and(|ending| ending == "md"))
        .collect();
    paths.sort();
    let read = |path: &PathBuf| Document {
        path: path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(),
        text: fs::read_to_string(path).unwrap(),
    };
    paths.iter().map(read).collect()
}

impl Document {
    /// What each line is: its number, the language of the fenced block that it is in, its text.
    fn lines(&self) -> Vec<(usize, Option<String>, &str)> {
        let mut language = None;
        let mut lines = Vec::new();
        for (number, line) in self.text.lines().enumerate() {
            if let Some(named) = line.trim_start().strip_prefix("```") {
                language = match language {
                    None => Some(named.trim().to_owned()),
                    Some(_) => None,
                };
                continue;
            }
            lines.push((number + 1, language.clone(), line));
        }
        lines
    }

    /// Every call of respaldo in blocks for a shell: the line, and the words after the program's name.
    pub fn calls(&self) -> Vec<(usize, Vec<String>)> {
        let mut calls = Vec::new();
        let mut open = String::new();
        for (number, language, line) in self.lines() {
            if !language.is_some_and(|name| ["sh", "console", "yaml", ""].contains(&name.as_str()))
            {
                continue;
            }
            if let Some(begun) = line.strip_suffix('\\') {
                open += begun;
                continue;
            }
            let line = std::mem::take(&mut open) + line;
            let simple = simple_commands(line.trim().trim_start_matches("$ "));
            calls.extend(simple.into_iter().filter_map(|words| Some((number, call(&words)?))));
        }
        calls
    }

    /// Blocks of TOML that are a config by themselves, with the line before them.
    pub fn configs(&self) -> Vec<(usize, String)> {
        let mut blocks: Vec<(usize, String)> = Vec::new();
        let mut last = 0;
        for (number, language, line) in self.lines() {
            if language.as_deref() == Some("toml") {
                if last + 1 != number || blocks.is_empty() {
                    blocks.push((number - 1, String::new()));
                }
                let block = &mut blocks.last_mut().unwrap().1;
                *block += line;
                block.push('\n');
                last = number;
            }
        }
        blocks.retain(|(_, text)| text.contains("[jobs.") && text.contains("[destinations."));
        blocks
    }

    /// Code within sentences, with its line.
    pub fn spans(&self) -> Vec<(usize, String)> {
        let mut spans = Vec::new();
        for (number, language, line) in self.lines() {
            if language.is_none() {
                let parts = line.split('`').skip(1).step_by(2);
                spans.extend(parts.map(|span| (number, span.replace("\\|", "|"))));
            }
        }
        spans
    }

    /// The targets of links, with their lines.
    pub fn links(&self) -> Vec<(usize, String)> {
        let mut links = Vec::new();
        for (number, language, line) in self.lines() {
            if language.is_none() {
                let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
                links.extend(targets.map(|target| (number, target.to_owned())));
            }
        }
        links
    }

    /// What a link may name after `#`, as GitHub makes it from headings.
    pub fn anchors(&self) -> Vec<String> {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        let headings = self.lines().into_iter().filter(|(_, language, _)| language.is_none());
        let headings = headings.filter_map(|(.., line)| {
            let title = line.trim_start_matches('#');
            (title.len() < line.len()).then(|| title.strip_prefix(' ')).flatten()
        });
        let mut anchors = Vec::new();
        for title in headings {
            let kept = title.trim().to_lowercase();
            let kept = kept.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
            let slug: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
            let count = seen.entry(slug.clone()).or_default();
            anchors.push(if *count == 0 { slug } else { format!("{slug}-{count}") });
            *count += 1;
        }
        anchors
    }

    /// The file that a relative link names, from the root.
    pub fn beside(&self, target: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(&self.path).parent().unwrap().join(target)
    }
}

/// A line taken apart as a shell would: commands, each as its words; comments are gone.
pub fn simple_commands(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), _) if character == open => quote = None,
            (Some('\''), _) => word.get_or_insert_default().push(character),
            (_, '\\') => word.get_or_insert_default().extend(characters.next()),
            (Some(_), _) => word.get_or_insert_default().push(character),
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, ' ' | '|' | ';' | '&' | '(' | ')' | '{' | '}' | '<' | '>') => {
                commands.last_mut().unwrap().extend(word.take());
                if character != ' ' {
                    commands.push(Vec::new());
                }
            }
            (None, _) => word.get_or_insert_default().push(character),
        }
    }
    commands.last_mut().unwrap().extend(word.take());
    commands.retain(|words| !words.is_empty());
    commands
}

/// The words that respaldo gets from a command, in a container or not.
fn call(words: &[String]) -> Option<Vec<String>> {
    let is_program = |word: &String| word == "respaldo" || word.ends_with("/respaldo");
    let said: Vec<&str> = words.iter().map(String::as_str).collect();
    let assigned = words.iter().take_while(|word| word.contains('=') && !word.starts_with('-'));
    let own = &words[assigned.count()..];
    let after = |at: usize| words.get(at..).map(<[String]>::to_vec);
    let found = if own.first().is_some_and(is_program) {
        Some(own[1..].to_vec())
    } else if let Some(at) = said.windows(2).position(|two| two == ["respaldo", "respaldo"]) {
        // The service, and the program in it.
        after(at + 2)
    } else if let Some(at) = said.windows(2).position(|two| two == ["--rm", "restore"]) {
        after(at + 1)
    } else if let Some(at) = said.windows(2).position(|two| two[0] == "--" && two[1] == "respaldo")
    {
        after(at + 2)
    } else if said.starts_with(&["docker", "run"]) {
        let image = said.iter().position(|word| word.starts_with("respaldo:"))?;
        after(image + 1)
    } else if said.starts_with(&["sudo"]) {
        let at =
            words.iter().position(is_program).filter(|at| said.get(at - 1) == Some(&"respaldo"))?;
        after(at + 1)
    } else {
        None
    };
    // A function that stands for it is no call.
    found.filter(|words| !words.is_empty() && !words.iter().any(|word| word == "$@"))
}
