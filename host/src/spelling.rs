//! Which name somebody may have meant.

/// The name most like `wanted`, if one is like it at all.
pub fn nearest<'n>(wanted: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    names
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(wanted, name), name))
        .filter(|(distance, name)| *distance <= name.len().max(wanted.len()) / 3 + 1)
        .min()
        .map(|(_, name)| name)
}

/// `` `a`, `b` ``
pub fn list<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| format!("`{}`", name.as_ref())).collect();
    names.join(", ")
}

/// What to say behind "there is no `wanted`": the nearest of `names`, or all of them.
pub fn instead<'n>(wanted: &str, names: impl IntoIterator<Item = &'n str> + Clone) -> String {
    match nearest(wanted, names.clone()) {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => match list(names) {
            all if all.is_empty() => "there is none".to_owned(),
            all => format!("there is {all}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_is_named_or_all() {
        let names = ["dev", "staging", "production"];
        assert_eq!(nearest("stagign", names), Some("staging"));
        assert_eq!(nearest("qa-environment", names), None);
        assert_eq!(instead("prodution", names), "did you mean `production`?");
        assert_eq!(instead("qa-environment", ["dev", "prod"]), "there is `dev`, `prod`");
        assert_eq!(instead("dev", []), "there is none");
    }
}
