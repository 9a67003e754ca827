//! Capacity provider strategies: pure.
//!
//! API reference, "CapacityProviderStrategyItem".

use crate::model::CapacityProviderStrategyItem;
use crate::protocol::ApiError;

/// Refuses a strategy that a cluster with the providers `associated` cannot follow.
pub(crate) fn check(
    strategy: &[CapacityProviderStrategyItem],
    associated: &[String],
) -> Result<(), ApiError> {
    if strategy.len() > 20 {
        return Err(ApiError::invalid_parameter(
            "A capacity provider strategy can contain a maximum of 20 capacity providers.",
        ));
    }
    for item in strategy {
        if !(0..=1000).contains(&item.weight) || !(0..=100_000).contains(&item.base) {
            return Err(ApiError::invalid_parameter(
                "The weight of a capacity provider is from 0 to 1000, its base from 0 to 100000.",
            ));
        }
        if !associated.contains(&item.capacity_provider) {
            return Err(ApiError::invalid_parameter(format!(
                "The specified capacity provider was not found. Specify a valid name or ARN and try again. ({})",
                item.capacity_provider
            )));
        }
    }
    if strategy.len() > 1 && strategy.iter().all(|item| item.weight == 0) {
        return Err(ApiError::invalid_parameter(
            "The capacity provider strategy must have at least one capacity provider with a weight greater than 0.",
        ));
    }
    let fargate =
        strategy.iter().filter(|item| item.capacity_provider.starts_with("FARGATE")).count();
    if fargate != 0 && fargate != strategy.len() {
        return Err(ApiError::invalid_parameter(
            "The specified capacity provider strategy cannot contain a mix of Fargate capacity providers and Auto Scaling group capacity providers.",
        ));
    }
    if strategy.iter().filter(|item| item.base > 0).count() > 1 {
        return Err(ApiError::invalid_parameter(
            "Only one capacity provider in a capacity provider strategy can have a base defined.",
        ));
    }
    Ok(())
}

/// The providers of `count` tasks: bases first, then by weight.
pub(crate) fn distribute(
    strategy: &[CapacityProviderStrategyItem],
    count: usize,
) -> impl Iterator<Item = String> + use<> {
    let mut given = vec![0_i64; strategy.len()];
    let mut providers = Vec::with_capacity(count);
    for _ in 0..count {
        let wanting = strategy.iter().zip(&given).position(|(item, given)| *given < item.base);
        let fairest = || {
            let weighed =
                strategy.iter().zip(&given).enumerate().filter(|(_, (item, _))| item.weight > 0);
            // a/w < b/v, without division; the first of equals.
            weighed
                .min_by(|(_, (item, given)), (_, (other, others))| {
                    ((*given + 1) * other.weight).cmp(&((*others + 1) * item.weight))
                })
                .map(|(index, _)| index)
        };
        let index = wanting.or_else(fairest).unwrap_or(0);
        if let (Some(item), Some(given)) = (strategy.get(index), given.get_mut(index)) {
            *given += 1;
            providers.push(item.capacity_provider.clone());
        }
    }
    providers.into_iter()
}

#[cfg(test)]
mod tests {
    use super::{check, distribute};
    use crate::model::CapacityProviderStrategyItem;

    fn strategy(items: &[(&str, i64, i64)]) -> Vec<CapacityProviderStrategyItem> {
        items
            .iter()
            .map(|&(name, weight, base)| CapacityProviderStrategyItem {
                capacity_provider: name.to_owned(),
                weight,
                base,
            })
            .collect()
    }

    #[test]
    fn bases_come_first_then_weights() {
        type Row<'a> = (&'a [(&'a str, i64, i64)], &'a str);
        let table: &[Row<'_>] = &[
            (&[("A", 0, 0)], "AAAA"),
            (&[("A", 1, 0), ("B", 1, 0)], "ABAB"),
            (&[("A", 1, 0), ("B", 3, 0)], "BBAB"),
            (&[("A", 0, 1), ("B", 1, 0)], "ABBB"),
        ];
        for (items, expected) in table {
            assert_eq!(distribute(&strategy(items), 4).collect::<String>(), *expected, "{items:?}");
        }
    }

    #[test]
    fn every_rule_refuses() {
        type Row<'a> = (&'a [(&'a str, i64, i64)], &'a str);
        let many = vec![("FARGATE", 1, 0); 21];
        let table: &[Row<'_>] = &[
            (&many, "maximum of 20"),
            (&[("FARGATE", 1001, 0)], "from 0 to 1000"),
            (&[("FARGATE", 1, -1)], "from 0 to 1000"),
            (&[("FARGATE_SPOT", 1, 0)], "was not found"),
            (&[("FARGATE", 0, 0), ("FARGATE", 0, 0)], "greater than 0"),
            (&[("FARGATE", 1, 0), ("asg", 1, 0)], "cannot contain a mix"),
            (&[("FARGATE", 1, 1), ("FARGATE", 1, 1)], "Only one"),
        ];
        let associated = ["FARGATE".to_owned(), "asg".to_owned()];
        for (items, expected) in table {
            let error = check(&strategy(items), &associated).unwrap_err();
            assert!(
                error.message.contains(expected),
                "`{}` should contain `{expected}`",
                error.message
            );
        }
        assert!(check(&strategy(&[("FARGATE", 0, 0)]), &associated).is_ok());
    }
}
