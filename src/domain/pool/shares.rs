//! Who has to make room in a full queue, so that a tenant who fills it keeps nobody else out.
//!
//! Invariants, held by the property test: nobody is sent away for one who has as much already; whoever comes often enough
//! to a full queue has in the end as many places as anybody else, but for one.

use std::collections::BTreeMap;

use crate::domain::tenant::TenantName;

/// The tenant with the most places of a full queue, when it has to give one of them to `comer`; none when `comer` would
/// have more than that one then. `waiting`: the tenant of each place.
pub fn gives_way<'a>(comer: &TenantName, waiting: impl Iterator<Item = &'a TenantName>) -> Option<&'a TenantName> {
    let mut places: BTreeMap<&TenantName, usize> = BTreeMap::new();
    let mut names: BTreeMap<&TenantName, &'a TenantName> = BTreeMap::new();
    for tenant in waiting {
        *places.entry(tenant).or_default() += 1;
        names.insert(tenant, tenant);
    }
    let own = places.get(comer).copied().unwrap_or(0);
    let (tenant, most) = places.into_iter().max_by_key(|(_, many)| *many)?;
    (most > own + 1).then(|| names.get(tenant).copied()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(n: u8) -> TenantName {
        format!("t{n}").parse().unwrap()
    }

    #[test]
    fn who_has_most_gives_way_to_who_has_less_by_two() {
        let [a, b, c] = [name(1), name(2), name(3)];
        assert_eq!(gives_way(&b, [&a, &a, &a].into_iter()), Some(&a));
        assert_eq!(gives_way(&b, [&a, &a, &b].into_iter()), None, "they would only change places");
        assert_eq!(gives_way(&a, [&a, &a, &a].into_iter()), None);
        assert_eq!(gives_way(&c, [&a, &a, &b, &b, &b].into_iter()), Some(&b));
        assert_eq!(gives_way(&c, std::iter::empty()), None);
    }

    proptest! {
        #[test]
        fn shares_become_even_for_whoever_comes(
            first in prop::collection::vec(0..4u8, 1..40),
            comers in prop::collection::vec(0..4u8, 0..400),
        ) {
            let mut queue: Vec<TenantName> = first.into_iter().map(name).collect();
            let count = |queue: &[TenantName], tenant: &TenantName| queue.iter().filter(|one| *one == tenant).count();
            let place = |queue: &mut Vec<TenantName>, comer: TenantName| {
                let Some(from) = gives_way(&comer, queue.iter()).cloned() else { return };
                assert!(count(queue, &from) > count(queue, &comer) + 1);
                let at = queue.iter().rposition(|one| *one == from).unwrap();
                queue[at] = comer;
            };
            let size = queue.len();
            for comer in comers {
                place(&mut queue, name(comer));
                prop_assert_eq!(queue.len(), size);
            }
            for _ in 0..size {
                place(&mut queue, name(9));
            }
            let most = (0..4).map(|n| count(&queue, &name(n))).max().unwrap();
            prop_assert!(count(&queue, &name(9)) + 1 >= most, "{queue:?}");
        }
    }
}
