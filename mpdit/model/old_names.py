"""Names of parameters in files that earlier releases wrote: weights, bundles, EMA snapshots, checkpoints."""

NAMES = "2"  # what files of weights say of the names in them; those of release 0.1.0 say nothing
_RENAMED = {
    "network.patches.": "network.patch_embed.",
    "network.level.into.": "network.noise_embed.fc1.",
    "network.level.out.": "network.noise_embed.fc2.",
    "network.label.": "network.class_embed.",
    ".attention.branch.out.": ".attention.branch.proj.",
    ".mlp.branch.into.": ".mlp.branch.fc1.",
    ".mlp.branch.out.": ".mlp.branch.fc2.",
    "network.final.out.": "network.final.proj_out.",
    "uncertainty.": "logvar.",
}


def current_name(name: str, names: str | None) -> str:
    """Return the name that a stored tensor has today.

    Args:
        name: as it is stored; it may have a prefix, as `adam/exp_avg/network.patches.weight`.
        names: what the file says of its names, None where it says nothing. Names of today are left as they are, as a
            plug-in's layer may be called what one of ours was called once.
    """
    if names == NAMES:
        return name
    for old, new in _RENAMED.items():
        name = name.replace(old, new)
    return name
