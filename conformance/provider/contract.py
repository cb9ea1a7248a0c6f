"""The provider's price list as an operator would write it down: a contract file for costspan."""

from collections.abc import Collection, Mapping

from costspan.conformance.provider.prices import DEFAULT_ALIASES, DEFAULT_PRICES, Prices


def contract_toml(
    prices: Prices = DEFAULT_PRICES,
    aliases: Mapping[str, str] = DEFAULT_ALIASES,
    without: Collection[str] = (),
) -> str:
    """The contract as TOML; models in ``without`` are left out: nobody has a price for them."""
    lines = ["[book]", 'id = "loopback-contract"', "", "[aliases]"]
    lines += [f'"{dated}" = "{model}"' for dated, model in aliases.items() if model not in without]
    for name, rates in prices.items():
        model, _, tier = name.partition("#")
        if model in without:
            continue
        lines += ["", "[[price]]", f'model = "{model}"']
        lines += [f'tier = "{tier}"'] if tier else []
        lines += [f'{component} = "{rate}"' for component, rate in rates.items()]
    return "\n".join(lines) + "\n"
