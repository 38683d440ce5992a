//! Names belong to keys (section 2.1): whose a name is, and how a client gets back to its own.

use serde_json::json;

use super::{QUICK, base, runs, want};
use crate::conform::case::Case;
use crate::conform::relay::Outcome;
use crate::conform::relay::rest::Tunnel;
use crate::conform::relay::world::World;

pub(super) static CASES: &[Case<World>] = &[
    base("name-folded", "upper case in a name is folded", &["R-10"], QUICK, runs!(folded)),
    base(
        "name-after-drop",
        "a client that was lost gets its name, URL and viewers back",
        &["R-12"],
        QUICK,
        runs!(after_drop),
    ),
    base(
        "name-after-deletion",
        "the name of a deleted tunnel is still its key's",
        &["R-12"],
        QUICK,
        runs!(after_deletion),
    ),
    base(
        "name-made-up",
        "a client comes back to a made-up name by its slug",
        &["R-12"],
        QUICK,
        runs!(made_up),
    ),
    base(
        "name-of-another",
        "another key gets 409 for the name, also when the tunnel is deleted",
        &["R-11"],
        QUICK,
        runs!(of_another),
    ),
    base("name-at-once", "two creations of a name at once give one tunnel", &["R-12"], QUICK, runs!(at_once)),
];

async fn folded(world: World) -> Outcome {
    let name = world.name();
    let tunnel = world.tunnel(json!({ "name": name.to_uppercase() })).await?;
    want(tunnel.slug == name, &format!("the slug {name}"), &tunnel.slug)
}

async fn after_drop(world: World) -> Outcome {
    let client = world.client().await?;
    let first = client.tunnel.clone();
    client.socket.wire.reset();
    let again = world.tunnel(json!({ "name": first.slug })).await?;
    same_place(&first, &again)?;
    let mut client = world.serve(again).await?;
    client.served().await.map(drop)
}

fn same_place(first: &Tunnel, again: &Tunnel) -> Outcome {
    want(again.slug == first.slug, &format!("the slug {}", first.slug), &again.slug)?;
    let (before, now) = (&first.json["public_url"], &again.json["public_url"]);
    want(before == now, &format!("the public_url {before}"), now)
}

async fn after_deletion(world: World) -> Outcome {
    let first = world.tunnel(json!({ "name": world.name() })).await?;
    world.delete(&first).await?;
    let again = world.tunnel(json!({ "name": first.slug })).await?;
    same_place(&first, &again)?;
    world.serve(again).await?.served().await.map(drop)
}

async fn made_up(world: World) -> Outcome {
    let first = world.tunnel(json!({})).await?;
    let again = world.tunnel(json!({ "name": first.slug })).await?;
    same_place(&first, &again)?;
    want(again.id == first.id, "the tunnel that is there", &again.json)
}

async fn of_another(world: World) -> Outcome {
    let key2 = world.key2()?.to_owned();
    let first = world.tunnel(json!({ "name": world.name() })).await?;
    let wish = json!({ "name": first.slug });
    world.try_create(&key2, &wish).await?.refused(409, "name_taken", "for another key")?;
    world.delete(&first).await?;
    world.try_create(&key2, &wish).await?.refused(409, "name_taken", "for another key after a deletion")?;
    same_place(&first, &world.tunnel(wish).await?)
}

async fn at_once(world: World) -> Outcome {
    let wish = json!({ "name": world.name() });
    let (first, second) = tokio::try_join!(world.tunnel(wish.clone()), world.tunnel(wish))?;
    want(first.id == second.id, "one tunnel for both", format!("{} and {}", first.id, second.id))
}
