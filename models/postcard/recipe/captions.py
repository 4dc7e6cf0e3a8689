"""The grammar of the prompts: English sentences for scenes.

A *request* is what a caption states: a part of a scene's attributes. `phrase(request, rng)` words it in one of
many ways; `sample(rng)` draws a request and a caption. Prompts are split by a hash of their text: about one
caption in sixteen is held out, is never shown in training, and serves for measuring.
"""

import random
import zlib

from .scenes import ATTRIBUTES, WATER, complete

TIME = {
    "day": ["at noon", "on a sunny day", "during the day", "in the afternoon"],
    "dawn": ["at dawn", "at sunrise", "early in the morning"],
    "sunset": ["at sunset", "at dusk", "in the evening"],
    "night": ["at night", "at midnight", "in the moonlight"],
    "aurora": ["under the northern lights", "under an aurora", "below the aurora"],
}
GROUND = {
    "meadow": ["in a meadow", "on green grass", "in a green field"],
    "desert": ["in the desert", "on sand dunes", "among the dunes"],
    "snow": ["in the snow", "in winter", "on a snowy field"],
    "sea": ["by the sea", "on the beach", "on the coast"],
    "lake": ["by a lake", "at a lake", "on the shore of a lake"],
    "lavender": ["in a lavender field", "among lavender", "in a field of lavender"],
}
AFLOAT = {"sea": ["on the sea", "at sea", "on the ocean"], "lake": ["on a lake", "on the lake"]}
ALOFT = {"meadow": ["over a meadow", "above green fields"], "desert": ["over the desert", "above sand dunes"],
         "snow": ["over the snow", "above a snowy field"], "sea": ["over the sea", "above a beach"],
         "lake": ["over a lake", "above a lake"], "lavender": ["over a lavender field", "above lavender"]}
SCENERY = {"meadow": ["a meadow", "a green field"], "desert": ["a desert", "sand dunes"],
           "snow": ["a snowy field", "a winter landscape"], "sea": ["a beach", "the sea"], "lake": ["a lake"],
           "lavender": ["a lavender field"]}
OBJECT = {"house": ["house", "house", "cottage"], "castle": ["castle"], "lighthouse": ["lighthouse"],
          "windmill": ["windmill", "windmill", "mill"], "tent": ["tent"], "boat": ["boat", "sailboat"],
          "balloon": ["balloon", "hot air balloon"]}
PLACE = {"left": ["on the left"], "middle": ["in the middle", "in the center"], "right": ["on the right"]}
COUNT = {"1": ["a", "one"], "2": ["two"], "3": ["three"], "many": ["many", "a forest of", "a row of"]}
BACKGROUND = {"none": ["a flat horizon", "an open horizon"], "hills": ["hills", "rolling hills"],
              "mountains": ["mountains", "snowy mountains", "tall mountains"]}
CLOUDS = {"none": ["a clear sky", "no clouds"], "some": ["clouds", "a cloudy sky"]}
FRAME = ["a postcard of", "a picture of", "an illustration of"]


def article(words):
    return ("an " if words[0] in "aeiou" else "a ") + words


def tree_words(request, rng):
    count, kind = request["trees"], request.get("tree")
    one = count == "1"
    if kind is None:
        noun = "tree" if one else "trees"
    elif kind != "palm" and rng.random() < .25:
        noun = kind if one else kind + "s"
    else:
        noun = kind + (" tree" if one else " trees")
    number = rng.choice(COUNT[count])
    return article(noun) if number == "a" else number + " " + noun


def listed(items):
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def phrase(request, rng):
    """One wording of a request."""
    kind, ground = request.get("object", "none"), request.get("ground")
    extras = []
    if "trees" in request:
        extras.append(tree_words(request, rng))
    if "background" in request:
        extras.append(rng.choice(BACKGROUND[request["background"]]))
    if "clouds" in request:
        extras.append(rng.choice(CLOUDS[request["clouds"]]))
    time = rng.choice(TIME[request["time"]]) if "time" in request else None
    place = rng.choice(PLACE[request["place"]]) if "place" in request else None

    if kind != "none":
        noun = rng.choice(OBJECT[kind])
        if "color" in request:
            noun = request["color"] + " " + noun
        if rng.random() < .08:      # keywords
            words = [noun] + [w for w in (place, rng.choice(SCENERY[ground]) if ground else None, time) if w] + extras
            return ", ".join(words)
        subject = article(noun)
        table = AFLOAT if kind == "boat" else ALOFT if kind == "balloon" else GROUND
        where = rng.choice(table[ground]) if ground else None
    elif ground and not (("trees" in request or "background" in request) and rng.random() < .5):
        subject, where = rng.choice(SCENERY[ground]), None
    elif "trees" in request or "background" in request:     # these come first
        subject = extras.pop(rng.randrange(("trees" in request) + ("background" in request)))
        where = rng.choice(GROUND[ground]) if ground else None
    else:
        subject, where = rng.choice(["a landscape", "scenery"]), None

    if len(extras) > 1 and rng.random() < .5:
        rng.shuffle(extras)
    adverbs = [w for w in (where, time) if w]
    if len(adverbs) == 2 and rng.random() < .25:
        adverbs.reverse()
    head = subject + (" " + place if place else "")
    r = rng.random()
    front = None
    if adverbs and r < .22:
        front = adverbs.pop()       # "at night, a red house ..."
    tail = (" with " + listed(extras)) if extras else ""
    if r > .8 and len(extras) == 1:
        text = subject + " and " + extras[0] + "".join(" " + w for w in adverbs) if not place else \
            head + tail + "".join(" " + w for w in adverbs)
    elif r > .5:
        text = head + tail + "".join(" " + w for w in adverbs)
    else:
        text = head + "".join(" " + w for w in adverbs) + tail
    if front:
        return front + ", " + text
    return (rng.choice(FRAME) + " " + text) if rng.random() < .08 else text


def draw_request(rng):
    """What a caption states. Every object, colour, place, count and kind is as frequent as the others."""
    r, choose = rng.random, lambda name: rng.choice(ATTRIBUTES[name])
    short = r() < .2
    p = .35 if short else .85
    request = {}
    if r() < .9:
        kind = request["object"] = rng.choice(ATTRIBUTES["object"][1:])
        if r() < (.6 if short else .88):
            request["color"] = choose("color")
        if r() < (.15 if short else .5):
            request["place"] = choose("place")
    if r() < p:
        request["ground"] = rng.choice(WATER) if request.get("object") == "boat" else choose("ground")
    if r() < p:
        request["time"] = choose("time")
    if r() < (.15 if short else .55):
        request["trees"] = rng.choice(ATTRIBUTES["trees"][1:])
        if r() < .85:
            request["tree"] = choose("tree")
    if r() < (.05 if short else .45):
        request["background"] = choose("background")
    if r() < (.05 if short else .2):
        request["clouds"] = choose("clouds")
    return request


def held_out(caption):
    return zlib.crc32(caption.encode()) % 16 == 0


def sample(rng, test=False):
    """-> (caption, request), from the training captions or from the held-out ones."""
    while True:
        request = draw_request(rng)
        caption = phrase(request, rng)
        if held_out(caption) == test and (request or not test):
            return caption, request


def recaption(scene, request, rng):
    """Another training caption for the same scene: what was stated and is the default may be left out, what was
    left out may be stated."""
    for _ in range(20):
        other = {}
        defaults = complete({k: v for k, v in request.items() if k == "object"})
        for name, value in scene.items():
            if name == "object" and value == "none" or name == "trees" and value == "0":
                continue
            other[name] = value
        # Leave out some of what a shorter caption would imply anyway.
        for name in rng.sample(sorted(other), len(other)):
            shorter = {k: v for k, v in other.items() if k != name}
            keep = .35 if name in request else .75
            if name != "object" and not (name == "trees") and complete(shorter) == scene and rng.random() < keep:
                other = shorter
        if "tree" in other and "trees" not in other:
            continue
        caption = phrase(other, rng)
        if not held_out(caption):
            return caption, other
    return phrase(request, rng), request


def test_prompts(count, seed=0):
    """A fixed list of held-out prompts, no two alike."""
    rng, seen, prompts = random.Random(seed), set(), []
    while len(prompts) < count:
        caption, request = sample(rng, test=True)
        if caption not in seen:
            seen.add(caption)
            prompts.append((caption, request))
    return prompts
