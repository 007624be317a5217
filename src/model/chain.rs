//! What a backup needs beside itself. Knows ids; must not know what a backup holds.

use super::BackupId;

/// A backup and all that it stands on, from itself down to the full one; `since` says what each stands on.
/// The error is the one that `since` does not know: without it the others are worth nothing.
pub fn chain(
    id: BackupId,
    since: impl Fn(&BackupId) -> Option<Option<BackupId>>,
) -> Result<Vec<BackupId>, BackupId> {
    let mut all = vec![id];
    let mut last = id;
    while let Some(below) = since(&last).ok_or(last)? {
        // Whoever wrote a manifest may have wanted us to go round for ever.
        if below >= last {
            return Err(below);
        }
        all.push(below);
        last = below;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_ends_with_a_full_one_or_is_none() {
        let id = |hour: u8| format!("20251124T{hour:02}0000Z").parse::<BackupId>().unwrap();
        let since = |one: &BackupId| match one {
            one if *one == id(2) => Some(None),
            one if *one == id(4) => Some(Some(id(2))),
            one if *one == id(6) => Some(Some(id(4))),
            one if *one == id(8) => Some(Some(id(7))),
            one if *one == id(10) => Some(Some(id(12))),
            _ => None,
        };
        assert_eq!(chain(id(6), since), Ok(vec![id(6), id(4), id(2)]));
        assert_eq!(chain(id(2), since), Ok(vec![id(2)]));
        assert_eq!(chain(id(8), since), Err(id(7)), "it is not there");
        assert_eq!(chain(id(10), since), Err(id(12)), "nothing stands on what came later");
        assert_eq!(chain(id(5), since), Err(id(5)));
    }
}
