"""The words that the shop is made of. All names are invented; addresses end in example.org, which nobody owns.

Some hold letters outside ASCII, quotes, tabs and backslashes on purpose: a reader of changes has to
bring them through unharmed.
"""

from __future__ import annotations

FIRST_NAMES = (
    "Ada", "Björn", "Chiara", "Dóra", "Elif", "Farid", "Grace", "Hana", "Igor", "Jun", "Karin", "Lena",
    "Mateo", "Nour", "Olga", "Paulo", "Quinn", "Rosa", "Søren", "Tomasz", "Uma", "Vera", "Wim", "Ximena",
    "Yusuf", "Zoë", "明", "Анна",
)  # fmt: skip

LAST_NAMES = (
    "Almeida", "Brandt", "Castel", "Dufour", "Ek", "Fabbri", "García", "Holm", "Ito", "Jansen", "Kovács",
    "Lindqvist", "Müller", "Novak", "O'Hara", "Petit", "Quist", "Rossi", "Şahin", "Tran", "Urban", "Vogel",
    "Weber", "Xu", "Yılmaz", "Zając",
)  # fmt: skip

COUNTRIES = (
    ("DE", "central"), ("FR", "west"), ("IT", "south"), ("ES", "south"), ("PL", "east"), ("SE", "north"),
    ("DK", "north"), ("NL", "west"), ("AT", "central"), ("CZ", "east"), ("PT", "south"), ("TR", "east"),
)  # fmt: skip
"""Country of a customer and the region of the orders."""

SEGMENTS = ("new", "regular", "trade", "gift", "outlet")
LANGUAGES = ("de", "en", "es", "fr", "it", "pl", "sv", "tr")

CATEGORIES = (
    ("kitchen", ("kettle", "pan", "teapot", "grater", "mill"), (900, 8900)),
    ("garden", ("trowel", "hose", "planter", "lantern", "shears"), (600, 14900)),
    ("office", ("lamp", "notebook", "stapler", "chair", "easel"), (200, 29900)),
    ("toys", ("kite", "puzzle", "spinning top", "abacus", "marble run"), (500, 5900)),
    ("textiles", ("blanket", "towel", "cushion", "apron", "curtain"), (1200, 9900)),
    ("outdoor", ("tent", "flask", "rucksack", "compass", "stove"), (1500, 44900)),
)
"""Category, its nouns, and its prices from and to, in cents."""

ADJECTIVES = (
    "blue",
    "folding",
    "small",
    "tall",
    "quiet",
    "oak",
    "steel",
    "woollen",
    "striped",
    "plain",
    "late",
    "bright",
)
TAGS = (
    "new",
    "sale",
    "eco",
    "fragile",
    "heavy",
    "gift idea",
    "last one",
    'the "good" one',
    "a,b",
    "für alle",
    "back\\slash",
)
CHANNELS = ("web", "app", "phone", "store")
COUPONS = ("WELCOME5", "SPRING10", "FRIENDS")
NOTES = (
    "Leave it at the door.",
    'Ring twice; the bell says "Weiß & Söhne".',
    "Gift: please wrap.\nNo invoice in the parcel.",
    "Tab\tand back\\slash, as typed.",
    "It's for my neighbour, 2nd floor.",
    "☎ before delivery",
    "",
)
