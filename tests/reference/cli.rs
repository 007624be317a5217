//! docs/reference/cli.md, from clap.

use clap::{Arg, ArgAction, Command};

use super::{code, head, table};

pub fn page(mut root: Command) -> String {
    root.build();
    let codes = after(&root);
    let mut text = head(
        "Command line",
        &format!(
            "stdout is data, stderr is talk; the shapes of `--json` are in [json.md](../json.md). `--help` after \
             any command prints what is here.\n\n{codes}"
        ),
    );
    text += "\n## For every command\n";
    text += &arguments(&root, true);
    for (path, command) in commands(&root) {
        text += &format!("\n## `{path}`\n\n{}.\n", command.get_about().unwrap());
        let usage = command.clone().render_usage().to_string();
        text += &format!("\n```text\n{}\n```\n", usage.trim_start_matches("Usage: ").trim());
        text += &arguments(command, false);
        let codes = after(command);
        if !codes.is_empty() {
            text += &format!("\n{codes}\n");
        }
    }
    text
}

/// Every command that does something, by its whole name.
pub fn commands(root: &Command) -> Vec<(String, &Command)> {
    let mut found = Vec::new();
    for command in root.get_subcommands().filter(|command| command.get_name() != "help") {
        let path = format!("{} {}", root.get_name(), command.get_name());
        if !command.has_subcommands() {
            found.push((path, command));
            continue;
        }
        let inside = commands(command).into_iter();
        found.extend(
            inside.map(|(below, command)| (format!("{} {below}", root.get_name()), command)),
        );
    }
    found
}

fn after(command: &Command) -> String {
    command.get_after_help().map(ToString::to_string).unwrap_or_default()
}

/// What can be said to a command: its own words, or those that all of them know.
fn arguments(command: &Command, global: bool) -> String {
    let known = ["help", "version"];
    let own = command.get_arguments().filter(|argument| {
        argument.is_global_set() == global && !known.contains(&argument.get_id().as_str())
    });
    let rows: Vec<Vec<String>> = own.map(row).collect();
    table(&["argument", "meaning"], &rows)
}

fn row(argument: &Arg) -> Vec<String> {
    let takes = matches!(argument.get_action(), ArgAction::Set | ArgAction::Append);
    let value = argument.get_value_names().into_iter().flatten().map(ToString::to_string);
    let value = if takes { value.collect::<Vec<_>>().join(" ") } else { String::new() };
    let long = argument.get_long().map(|long| format!("--{long}"));
    let short = argument.get_short().map(|short| format!("-{short}"));
    let names: Vec<String> = short.into_iter().chain(long).collect();
    let name = match (names.is_empty(), value.is_empty()) {
        (true, _) => value,
        (_, true) => names.join(", "),
        (..) => format!("{} {value}", names.join(", ")),
    };
    let help = argument.get_help().unwrap().to_string();
    let mut meaning = match help.trim_end_matches(']').split_once(" [default: ") {
        Some((help, default)) => format!("{help}. Default: {default}."),
        None => format!("{help}."),
    };
    let choices: Vec<String> =
        argument.get_possible_values().iter().map(|value| code(value.get_name())).collect();
    if takes && !choices.is_empty() {
        meaning += &format!(" One of {}.", choices.join(", "));
    }
    if let (true, Some(default)) = (takes, argument.get_default_values().first()) {
        meaning += &format!(" Default: {}.", code(&default.to_string_lossy()));
    }
    vec![code(&name), meaning]
}
