//! The tunnel's address pool: which slot a partner has, and what becomes of one that is given up.
//!
//! A slot is claimed by creating its Lease (see [`claims`]). Where a partner had one, it gets that one again: by the address that
//! its manifest names, by its claim, or by what its status says, in this order; so addresses survive a restore of any of the
//! three. One that is given up stays claimed for a time, and only the partner that had it gets it in that time: a configuration
//! that somebody forgot never meets another partner's address.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{api::coordination::v1::Lease, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, Preconditions},
};
use liaison_crds::{PARTNER_LABEL, PartnerConnection, RELEASED_ANNOTATION};
use serde_json::json;

use crate::{
    apply,
    claims::{Claim, Claims},
    context::Context,
    slots::{self, Pools},
};

/// So many slots are tried one by one; a pool in which none of them is free is listed.
const TRIES: usize = 8;
/// Claims a page of a list.
const PAGE: u32 = 500;

/// Why a partner has no slot, or not the one that its manifest names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The pool is full.
    #[error(
        "no tunnel slot is free: of {usable} in the pool {quarantined} are in quarantine and all others claimed; enlarge POOL_V4 and POOL_V6"
    )]
    Full {
        /// Slots of the pool.
        usable: u32,
        /// Those that were given up of late.
        quarantined: u32,
    },
    /// The manifest names an address that is no partner's end of a slot.
    #[error("`tunnelAddress` {0} is no partner's address of the pool: it must be an odd one of {1}")]
    OutsidePool(String, String),
    /// The manifest names an address that another partner has, or had until of late.
    #[error("`tunnelAddress` {address} is '{holder}''s, or was until of late")]
    InUse {
        /// The address.
        address: String,
        /// Whose it is.
        holder: String,
    },
}

impl Problem {
    /// A stable reason, for the condition.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Full { .. } => "PoolFull",
            Self::OutsidePool(..) => "AddressOutsidePool",
            Self::InUse { .. } => "AddressInUse",
        }
    }
}

/// What a partner has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// Its slot.
    pub slot: Option<u32>,
    /// What is wrong with it. A partner that has a slot keeps it, whatever is wrong with the one that it asks for.
    pub problem: Option<Problem>,
}

/// The slot of a partner, claimed. `choose`: one that never had a slot is given one.
pub async fn place(
    ctx: &Context,
    held: &[Lease],
    connection: &PartnerConnection,
    choose: bool,
    now: Timestamp,
) -> Result<Place, kube::Error> {
    let partner = connection.name_any();
    let mut problem = None;
    if let Some(address) = connection.spec.tunnel_address.as_deref().filter(|_| choose) {
        match pinned(ctx, held, &partner, address, now).await? {
            Ok(slot) => return Ok(Place { slot: Some(slot), problem: None }),
            Err(wrong) => problem = Some(wrong),
        }
    }
    // The smallest in use, should there be two; else one that was given up.
    let used = |lease: &&Lease| released(&lease.metadata).is_none();
    let all = || held.iter().filter(|lease| slots::slot_of(&lease.name_any()).is_some());
    let number = |lease: &&Lease| slots::slot_of(&lease.name_any());
    if let Some(lease) = all().filter(used).min_by_key(number).or_else(|| all().min_by_key(number)) {
        take_back(&ctx.claims, lease).await?;
        return Ok(Place { slot: number(&lease), problem });
    }
    let stated = connection.status.as_ref().and_then(|status| status.connection.as_ref());
    let stated = stated.and_then(|stated| ctx.pools.slot_of(&stated.partner_addresses.ipv4));
    if let Some(slot) = stated
        && let Claim::Mine(_) = ctx.claims.claim(&slots::lease_name(slot), &partner, now).await?
    {
        return Ok(Place { slot: Some(slot), problem });
    }
    if problem.is_some() || !choose {
        return Ok(Place { slot: None, problem });
    }
    first_free(ctx, &partner, now).await
}

/// The slot that the manifest names.
async fn pinned(
    ctx: &Context,
    held: &[Lease],
    partner: &str,
    address: &str,
    now: Timestamp,
) -> Result<Result<u32, Problem>, kube::Error> {
    let Some(slot) = ctx.pools.slot_of(address) else {
        return Ok(Err(Problem::OutsidePool(address.to_owned(), ctx.settings.pool_v4.clone())));
    };
    let name = slots::lease_name(slot);
    if let Some(lease) = held.iter().find(|lease| lease.name_any() == name) {
        take_back(&ctx.claims, lease).await?;
        return Ok(Ok(slot));
    }
    let in_use = |holder| Problem::InUse { address: address.to_owned(), holder };
    if let Some(holder) = stated_by(ctx, slot, partner) {
        return Ok(Err(in_use(holder)));
    }
    Ok(match ctx.claims.claim(&name, partner, now).await? {
        Claim::Mine(_) => Ok(slot),
        Claim::Of(holder) => Err(in_use(holder)),
    })
}

/// The first free slot in the partner's order.
async fn first_free(ctx: &Context, partner: &str, now: Timestamp) -> Result<Place, kube::Error> {
    let mut order = ctx.pools.probe(partner);
    let mine = async |slot: u32| -> Result<bool, kube::Error> {
        // After a restore another's claim may not be there yet; what its status says is its own all the same.
        let free = stated_by(ctx, slot, partner).is_none();
        Ok(free && matches!(ctx.claims.claim(&slots::lease_name(slot), partner, now).await?, Claim::Mine(_)))
    };
    for slot in order.by_ref().take(TRIES) {
        if mine(slot).await? {
            return Ok(Place { slot: Some(slot), problem: None });
        }
    }
    let all = list(ctx.claims.api()).await?;
    let taken: BTreeSet<u32> = all.iter().map(|(slot, _)| *slot).collect();
    for slot in order.filter(|slot| !taken.contains(slot)) {
        if mine(slot).await? {
            return Ok(Place { slot: Some(slot), problem: None });
        }
    }
    let count = Count::of(&all, &ctx.pools);
    let problem = Problem::Full { usable: ctx.pools.usable(), quarantined: count.quarantined };
    Ok(Place { slot: None, problem: Some(problem) })
}

/// The other partner whose status has this slot.
fn stated_by(ctx: &Context, slot: u32, partner: &str) -> Option<String> {
    let address = ctx.pools.addresses(slot).1.ipv4;
    let all = ctx.connections.as_ref()?.state();
    let other = all.iter().filter_map(|guard| guard.0.as_ref().ok()).find(|other| {
        let stated = other.status.as_ref().and_then(|status| status.connection.as_ref());
        stated.is_some_and(|stated| stated.partner_addresses.ipv4 == address) && other.name_any() != partner
    })?;
    Some(other.name_any())
}

/// When a claim was given up.
fn released(meta: &ObjectMeta) -> Option<Timestamp> {
    meta.annotations.as_ref()?.get(RELEASED_ANNOTATION)?.parse().ok()
}

/// Ends a quarantine: the partner is back.
async fn take_back(claims: &Claims, lease: &Lease) -> Result<(), kube::Error> {
    if released(&lease.metadata).is_none() {
        return Ok(());
    }
    // With the resourceVersion: it may be freed at this moment.
    let patch = json!({"metadata": {
        "resourceVersion": lease.resource_version(),
        "annotations": {RELEASED_ANNOTATION: null},
    }});
    claims.api().patch(&lease.name_any(), &apply::merging(), &Patch::Merge(&patch)).await.map(drop)
}

/// Gives a slot up: it is free after the quarantine.
pub async fn release(
    claims: &Claims,
    lease: &Lease,
    quarantine: SignedDuration,
    now: Timestamp,
) -> Result<(), kube::Error> {
    if quarantine.is_zero() {
        return claims.release(lease).await;
    }
    if released(&lease.metadata).is_some() {
        return Ok(());
    }
    let patch = json!({"metadata": {"uid": lease.uid(), "annotations": {RELEASED_ANNOTATION: now.to_string()}}});
    match claims.api().patch(&lease.name_any(), &apply::merging(), &Patch::Merge(&patch)).await {
        Ok(_) => Ok(()),
        Err(error) if apply::is_gone(&error) => Ok(()),
        Err(error) => Err(error),
    }
}

/// How full the pool is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Slots in use.
    pub claimed: u32,
    /// Slots that were given up of late.
    pub quarantined: u32,
    /// Slots that can be given.
    pub free: u32,
}

impl Count {
    fn of(all: &[(u32, ObjectMeta)], pools: &Pools) -> Self {
        let inside = all.iter().filter(|(slot, _)| (1..=pools.usable()).contains(slot));
        let mut count = Self::default();
        for (_, meta) in inside {
            if released(meta).is_some() {
                count.quarantined += 1;
            } else {
                count.claimed += 1;
            }
        }
        count.free = pools.usable().saturating_sub(count.claimed + count.quarantined);
        count
    }
}

/// Frees slots whose quarantine is over, and counts what is left.
pub async fn sweep(
    claims: &Claims,
    pools: &Pools,
    quarantine: SignedDuration,
    now: Timestamp,
) -> Result<Count, kube::Error> {
    let mut left = Vec::new();
    for (slot, meta) in list(claims.api()).await? {
        if released(&meta).is_none_or(|at| now.duration_since(at) < quarantine) {
            left.push((slot, meta));
            continue;
        }
        // Unless it was taken back in this moment.
        let preconditions = Preconditions { uid: meta.uid.clone(), resource_version: meta.resource_version.clone() };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match claims.api().delete(&slots::lease_name(slot), &params).await {
            Ok(_) => tracing::info!(slot, "tunnel slot free again"),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Count::of(&left, pools))
}

/// All claims of slots, by their metadata.
async fn list(leases: &Api<Lease>) -> Result<Vec<(u32, ObjectMeta)>, kube::Error> {
    let mut params = ListParams::default().labels(PARTNER_LABEL).limit(PAGE);
    let mut all = Vec::new();
    loop {
        let page = leases.list_metadata(&params).await?;
        let next = page.metadata.continue_.clone().filter(|token| !token.is_empty());
        all.extend(page.items.into_iter().filter_map(|lease| {
            let slot = slots::slot_of(lease.meta().name.as_deref()?)?;
            Some((slot, lease.metadata))
        }));
        match next {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(all),
        }
    }
}
