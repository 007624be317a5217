//! What the documents say can be typed and followed: no command or flag that is not there, no link
//! into the void. Whoever stands there at three in the morning types what is written.

use clap::Command;
use clap::error::ErrorKind;

use super::house::machine;
use crate::documents::{Document, all, simple_commands};

/// What stands for something in the documents, as somebody would fill it in.
fn filled_in(word: &str) -> String {
    match word {
        "ID" | "..." => "20251124T060000Z",
        "RUN" => "42",
        "FILE" | "PATH" | "DIR" => "/x",
        "ROLE" => "viewer",
        "YYYY-MM" => "2025-11",
        "TIME" => "7d",
        "N" => "2",
        "S.T" => "public.t",
        word if word.chars().all(|c| c.is_ascii_uppercase()) => "db",
        word => word,
    }
    .to_owned()
}

/// What clap has against the words, if anything. `part`: what is said in a sentence may leave out
/// what a command asks for.
fn against(words: &[String], part: bool) -> Option<String> {
    let words = words.iter().map(|word| filled_in(word));
    let parsed = respaldo::cli::command()
        .try_get_matches_from(std::iter::once("respaldo".to_owned()).chain(words));
    let error = parsed.err()?;
    let left_out =
        [ErrorKind::MissingRequiredArgument, ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand];
    let shown = [ErrorKind::DisplayHelp, ErrorKind::DisplayVersion];
    if shown.contains(&error.kind()) || part && left_out.contains(&error.kind()) {
        return None;
    }
    Some(error.to_string().lines().next().unwrap_or_default().to_owned())
}

/// For `restore JOB [ID|latest] [--from URL]`: the command and each of its flags are there.
fn synopsis(words: &str) -> Option<String> {
    let mut command: Command = respaldo::cli::command();
    command.build();
    let is_word = |c: char| c.is_alphanumeric() || ['-', '_'].contains(&c);
    for word in words.split(|c: char| !is_word(c)).filter(|word| !word.is_empty()) {
        if let Some(flag) = word.strip_prefix("--") {
            let known = command.get_arguments().any(|argument| argument.get_long() == Some(flag));
            if !known {
                return Some(format!("{} knows no --{flag}", command.get_name()));
            }
        } else if let Some(below) = command.find_subcommand(word) {
            command = below.clone();
        }
    }
    let is_one = command.get_name() != "respaldo";
    (!is_one).then(|| "names no command".to_owned())
}

fn wrong_in(document: &Document) -> (usize, Vec<String>) {
    let mut wrong = Vec::new();
    let mut seen = 0;
    let mut say = |number: usize, words: &str, error: Option<String>| {
        seen += 1;
        wrong.extend(error.map(|error| format!("{}:{number}: {words}: {error}", document.path)));
    };
    for (number, words) in document.calls() {
        say(number, &words.join(" "), against(&words, false));
    }
    let names: Vec<String> =
        respaldo::cli::command().get_subcommands().map(|one| one.get_name().to_owned()).collect();
    for (number, span) in document.spans() {
        let (is_call, rest) = match span.strip_prefix("respaldo ") {
            Some(rest) => (true, rest),
            None => (false, span.as_str()),
        };
        let is_named = names.iter().any(|name| rest.split(' ').next() == Some(name));
        if rest.contains(['[', '|']) && (is_call || is_named) {
            say(number, &span, synopsis(rest));
        } else if is_call || is_named && rest.contains(" --") {
            let commands = simple_commands(rest);
            say(number, &span, commands.first().and_then(|words| against(words, true)));
        }
    }
    (seen, wrong)
}

#[test]
fn every_command_in_the_documents_is_one() {
    let mut seen = 0;
    let mut wrong = Vec::new();
    for document in all() {
        // What changed once is history.
        if document.path != "CHANGELOG.md" {
            let (commands, found) = wrong_in(&document);
            seen += commands;
            wrong.extend(found);
        }
    }
    assert!(seen > 250, "only {seen} commands were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_command_that_is_none_is_found_wherever_it_stands() {
    for text in [
        "```sh\nrespaldo restore db --no-such-flag\n```",
        "```sh\ntrue && respaldo restor db\n```",
        "```sh\nrespaldo \\\n  backup db --labell x\n```",
        "```sh\ndc exec respaldo respaldo list --jsn\n```",
        "```sh\ndocker compose run --rm restore db --trusty\n```",
        "```sh\ndocker run -e X respaldo:latest lists --from s3://x/\n```",
        "```console\n$ respaldo token create ci --role king\n```",
        "say `respaldo verify db --al` to it",
        "| `restore JOB [--dry-run] [--no-way]` | |",
        "| `erase --jsn` | |",
        "`respaldo show db 42`",
    ] {
        let (seen, wrong) = wrong_in(&Document { path: "x".into(), text: text.into() });
        assert_eq!((seen, wrong.len()), (1, 1), "{text}: {wrong:?}");
    }
    for text in [
        "```sh\nrespaldo restore db --where \"a && b\" --schema x   # not --this\n```",
        "```sh\nrespaldo() { dc exec respaldo respaldo \"$@\"; }\n```",
        "```sh\ndocker compose up -d respaldo\n```",
        "```toml\nrespaldo nonsense\n```",
        "`respaldo show JOB ID` and `respaldo restore`",
    ] {
        let (_, wrong) = wrong_in(&Document { path: "x".into(), text: text.into() });
        assert!(wrong.is_empty(), "{text}: {wrong:?}");
    }
}

#[test]
fn every_whole_config_in_the_documents_is_one() {
    let mut seen = 0;
    for document in all() {
        for (number, config) in document.configs() {
            let shown = machine(&config).run(&["config", "show"]);
            assert_eq!(shown.code, 0, "{}:{number}: {}", document.path, shown.stderr);
            seen += 1;
        }
    }
    assert!(seen >= 2, "only {seen} were found");
}

#[test]
fn every_link_within_the_documents_leads_somewhere() {
    let documents = all();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for document in &documents {
        for (number, link) in document.links() {
            if link.starts_with("http") || link.starts_with("mailto:") {
                continue;
            }
            seen += 1;
            let (target, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let path = match target {
                "" => document.beside(document.path.rsplit('/').next().unwrap()),
                target => document.beside(target),
            };
            let there = path.canonicalize().ok();
            let other = there.as_ref().and_then(|there| {
                documents
                    .iter()
                    .find(|one| one.beside(one.path.rsplit('/').next().unwrap()) == *there)
            });
            let known = match (&there, other) {
                (None, _) => false,
                (Some(_), _) if anchor.is_empty() => true,
                (Some(_), other) => {
                    other.is_some_and(|one| one.anchors().iter().any(|one| one == anchor))
                }
            };
            if !known {
                wrong.push(format!("{}:{number}: {link}", document.path));
            }
        }
    }
    assert!(seen > 100, "only {seen} links were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn anchors_are_as_they_are_made() {
    let text =
        "# One thing\n## `GET /x/{job}`, really?\n## One thing\n```sh\n# no heading\n```\n#hash\n";
    let document = Document { path: "x".into(), text: text.into() };
    assert_eq!(document.anchors(), ["one-thing", "get-xjob-really", "one-thing-1"]);
}
