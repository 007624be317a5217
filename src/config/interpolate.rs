//! Fills `${NAME}` in a string from the environment, or from the file that `NAME_FILE` names.
//! Knows the syntax and nothing of keys or meanings.

use super::environment::{self, Variables};
use crate::fault::{Fault, Result};

/// `text` with every `${NAME}` filled in; `$${` stands for `${`. `place` names the key and its
/// file in errors.
pub(super) fn fill(text: &str, place: &str, variables: &Variables) -> Result<String> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, reference) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            filled.push_str(before);
            filled.push_str("${");
            rest = &reference[2..];
            continue;
        }
        filled.push_str(before);
        let Some((name, after)) = reference[2..].split_once('}').filter(|(name, _)| is_name(name))
        else {
            return Err(Fault::usage(format!("{place} has a ${{ that names no variable"))
                .hint("write ${NAME} for a variable, and $${ for the two characters themselves"));
        };
        filled.push_str(&value(name, place, variables)?);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

/// The variable that a string consists of: `NAME` for `${NAME}`.
pub(super) fn whole(text: &str) -> Option<&str> {
    text.strip_prefix("${")?.strip_suffix('}').filter(|name| is_name(name))
}

/// `text` so that [`fill`] gives it back.
pub(super) fn escape(text: &str) -> String {
    text.replace("${", "$${")
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn value(name: &str, place: &str, variables: &Variables) -> Result<String> {
    let found = environment::lookup(variables, name).map_err(|fault| {
        let hint = fault.next_step().unwrap_or_default().to_owned();
        Fault::usage(format!("{place} uses ${{{name}}}: {fault}")).hint(hint)
    })?;
    found.map(|found| found.value).or_else(|| variables.get(name).cloned()).ok_or_else(|| {
        Fault::usage(format!("{place} uses ${{{name}}}, but neither {name} nor {name}_FILE is set"))
            .hint(format!("set {name}, or let {name}_FILE name a file that holds the value"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        [("A", "1"), ("EMPTY", ""), ("CASH", "a${A}b")].map(|(k, v)| (k.into(), v.into())).into()
    }

    #[test]
    fn fills_once_and_leaves_the_escaped_alone() {
        let variables = variables();
        let fill = |text: &str| fill(text, "key", &variables);
        assert_eq!(fill("x${A}y${A}").unwrap(), "x1y1");
        assert_eq!(fill("$${A} $A $").unwrap(), "${A} $A $");
        assert_eq!(fill("${CASH}").unwrap(), "a${A}b");
        assert_eq!(fill("${EMPTY}").unwrap(), "");
        for bad in ["${}", "${A", "${A B}"] {
            assert!(fill(bad).unwrap_err().to_string().contains("names no variable"), "{bad}");
        }
        for text in ["${A}", "a$${b", "$", "${"] {
            assert_eq!(fill(&escape(text)).unwrap(), text);
        }
    }

    #[test]
    fn says_both_names_when_neither_is_set() {
        let fault = fill("${NOPE}", "a.b (in x.toml)", &variables()).unwrap_err();
        assert_eq!(
            fault.to_string(),
            "a.b (in x.toml) uses ${NOPE}, but neither NOPE nor NOPE_FILE is set"
        );
        assert!(fault.next_step().unwrap().contains("NOPE_FILE"));
    }
}
