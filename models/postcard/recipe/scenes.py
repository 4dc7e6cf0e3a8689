"""The world the model lives in: postcards of landscapes, drawn as flat shapes.

A picture is a pure function of a *scene* (a dict naming a value for every attribute below) and of 64 *keys*,
numbers drawn from N(0,1), laid out as [channel, row, column] over a 4x4 grid of the picture. The keys steer
what the scene leaves open: where the clouds are, how the mountains rise, where exactly the house stands.
In training the keys are the cell means of the initial noise (see data.py), so that noise and caption together
determine the picture, and one-step generation is plain regression.

What makes this easy to learn, and was chosen for that:
  * a key acts in the cell of the picture in which it sits, or near it;
  * everything is continuous in its key: a cloud shrinks to nothing, it is not switched off by a threshold;
  * what a caption leaves unsaid has one fixed default, not a value hidden in the noise;
  * things are large (objects 40-60 of 128 pixels): the autoencoder keeps one latent cell per 8x8 pixels.
"""

import math

import numpy as np
from PIL import Image, ImageDraw

ATTRIBUTES = {
    "time": ["day", "dawn", "sunset", "night", "aurora"],
    "ground": ["meadow", "desert", "snow", "sea", "lake", "lavender"],
    "background": ["none", "hills", "mountains"],
    "clouds": ["none", "some"],
    "object": ["none", "house", "castle", "lighthouse", "windmill", "tent", "boat", "balloon"],
    "color": ["red", "orange", "yellow", "green", "blue", "purple", "pink", "white"],
    "place": ["left", "middle", "right"],
    "trees": ["0", "1", "2", "3", "many"],
    "tree": ["pine", "oak", "palm"],
}

DEFAULT_COLOR = {"house": "red", "castle": "blue", "lighthouse": "red", "windmill": "white", "tent": "orange",
                 "boat": "white", "balloon": "red"}
DEFAULT_TREE = {"meadow": "oak", "desert": "palm", "snow": "pine", "sea": "palm", "lake": "pine", "lavender": "oak"}
WATER = ("sea", "lake")


def complete(stated):
    """The whole scene for what a caption states: everything unsaid gets its fixed default."""
    scene = dict(stated)
    scene.setdefault("time", "day")
    scene.setdefault("object", "none")
    scene.setdefault("ground", "sea" if scene["object"] == "boat" else "meadow")
    scene.setdefault("background", "hills")
    scene.setdefault("clouds", "some")
    scene.setdefault("trees", "0")
    if scene["object"] != "none":
        scene.setdefault("color", DEFAULT_COLOR[scene["object"]])
        scene.setdefault("place", "middle")
    if scene["trees"] != "0":
        scene.setdefault("tree", DEFAULT_TREE[scene["ground"]])
    return scene


def any_scene(rng):
    """A scene in which every value of every attribute is as likely as the others."""
    scene = {name: rng.choice(values) for name, values in ATTRIBUTES.items()}
    if scene["object"] == "boat":
        scene["ground"] = rng.choice(WATER)
    if scene["object"] == "none":
        del scene["color"], scene["place"]
    if scene["trees"] == "0":
        del scene["tree"]
    return scene


COLORS = {"red": (214, 44, 46), "orange": (246, 134, 30), "yellow": (252, 214, 52), "green": (40, 152, 78),
          "blue": (38, 96, 214), "purple": (124, 58, 176), "pink": (250, 132, 184), "white": (250, 248, 242)}

# Sky from top to horizon.
SKY = {
    "day": [(48, 132, 222), (122, 192, 244), (216, 240, 250)],
    "dawn": [(122, 130, 206), (232, 168, 204), (255, 226, 196)],
    "sunset": [(86, 44, 122), (234, 88, 92), (255, 192, 98)],
    "night": [(12, 16, 54), (28, 42, 98), (70, 90, 150)],
    "aurora": [(8, 18, 48), (14, 50, 76), (36, 100, 116)],
}
# Light on the landscape; on the object it is weaker, so that its colour stays readable.
LIGHT = {"day": (1, 1, 1), "dawn": (1.0, .88, .92), "sunset": (.98, .70, .62), "night": (.42, .50, .76),
         "aurora": (.36, .60, .64)}
GROUND = {"meadow": (122, 190, 84), "desert": (238, 190, 116), "snow": (242, 247, 253), "sea": (246, 224, 170),
          "lake": (112, 174, 92), "lavender": (150, 112, 200)}
CLOUD = {"day": (255, 255, 255), "dawn": (255, 232, 232), "sunset": (255, 164, 138), "night": (78, 92, 146),
         "aurora": (34, 72, 92)}

HORIZON = .58
FOOT = .86          # where objects stand
COLUMN = {"left": 0, "middle": 1, "right": 3}      # the cells an object's keys sit in
PLACE = {"left": .27, "middle": .50, "right": .73}
# Where trees stand: by the object's place, then by their number.
SLOTS = {
    "none": {"1": [.30], "2": [.25, .75], "3": [.18, .50, .82]},
    "left": {"1": [.78], "2": [.65, .88], "3": [.57, .75, .92]},
    "middle": {"1": [.86], "2": [.13, .87], "3": [.12, .78, .94]},
    "right": {"1": [.22], "2": [.12, .35], "3": [.08, .25, .43]},
}


def mix(a, b, t):
    return tuple(x + (y - x) * t for x, y in zip(a, b))


def times(a, b):
    return tuple(x * y for x, y in zip(a, b))


def dim(a, f):
    return tuple(x * f for x in a)


def rgb(c):
    return tuple(int(max(0, min(255, round(v)))) for v in c)


class Pen:
    """Draws on a supersampled canvas in coordinates of the unit square, and, while `marking`, into a small
    mask as well: the training weighs the errors there more heavily."""

    def __init__(self, image, mask):
        self.width = image.size[0]
        self.image, self.draw = image, ImageDraw.Draw(image)
        self.mask, self.mark = mask, ImageDraw.Draw(mask)
        self.marking = False

    def canvases(self, color):
        yield self.draw, self.width, rgb(color)
        if self.marking:
            yield self.mark, self.mask.size[0], 255

    def polygon(self, points, color):
        for draw, w, fill in self.canvases(color):
            draw.polygon([(x * w, y * w) for x, y in points], fill=fill)

    def rect(self, x0, y0, x1, y1, color):
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], color)

    def ellipse(self, x, y, rx, ry, color):
        for draw, w, fill in self.canvases(color):
            draw.ellipse([(x - rx) * w, (y - ry) * w, (x + rx) * w, (y + ry) * w], fill=fill)

    def circle(self, x, y, r, color):
        self.ellipse(x, y, r, r, color)


class Local:
    """A pen in an object's own coordinates: origin at its foot, y upwards, one unit = `unit` of the picture."""

    def __init__(self, pen, x, y, unit):
        self.pen, self.x, self.y, self.unit = pen, x, y, unit

    def polygon(self, points, color):
        self.pen.polygon([(self.x + u * self.unit, self.y - v * self.unit) for u, v in points], color)

    def rect(self, u0, v0, u1, v1, color):
        self.polygon([(u0, v0), (u1, v0), (u1, v1), (u0, v1)], color)

    def ellipse(self, u, v, ru, rv, color):
        self.pen.ellipse(self.x + u * self.unit, self.y - v * self.unit, ru * self.unit, rv * self.unit, color)


def smooth(values, x):
    """A smooth curve through equally spaced values, at x in [0,1]."""
    f = x * (len(values) - 1)
    j = np.minimum(f.astype(int), len(values) - 2)
    t = f - j
    t = t * t * (3 - 2 * t)
    values = np.asarray(values)
    return values[j] * (1 - t) + values[j + 1] * t


def ridge(pen, heights, base, color, n=33):
    xs = np.linspace(0, 1, n)
    ys = base - smooth(heights, xs)
    pen.polygon([(0, 1)] + list(zip(xs.tolist(), ys.tolist())) + [(1, 1)], color)


def sky(scene, u, width):
    """Gradient, glow and aurora, made small and enlarged: all of it is smooth."""
    n = 64
    y = np.linspace(0, 1, n)[:, None] / HORIZON
    top, middle, low = [np.array(c, np.float32) for c in SKY[scene["time"]]]
    rows = np.where(y < .55, top + (middle - top) * (y / .55), middle + (low - middle) * ((y - .55) / .45).clip(0, 1))
    a = np.repeat(rows[:, None, :], n, 1)
    yy, xx = np.mgrid[0:n, 0:n].astype(np.float32) / n
    time, sun = scene["time"], (.14 + .72 * u[3, 0, 1], HORIZON)
    if time == "aurora":
        for k, (color, lift, height) in enumerate((((70, 255, 160), .40, .30), ((150, 90, 230), .25, .22))):
            curve = lift - .16 * smooth([u[2 - k, 0, c] for c in range(4)], xx[0])
            rise = curve[None, :] - yy      # height above the ribbon's lower edge
            glow = np.where(rise > 0, np.exp(-rise / (height * .45)), np.exp(rise / .02)) * (.85 - .25 * k)
            a += (np.array(color, np.float32) - a) * glow[..., None]
    else:
        low_sun = time in ("sunset", "dawn")
        sun = (sun[0], HORIZON - .05 - .12 * u[3, 0, 2] if low_sun else .11 + .12 * u[3, 0, 2])
        distance = (xx - sun[0]) ** 2 + (yy - sun[1]) ** 2
        color, near, far = {"day": ((255, 250, 215), .5, .25), "dawn": ((255, 236, 200), .55, .35),
                            "sunset": ((255, 206, 110), .65, .45), "night": ((130, 150, 214), .5, .25)}[time]
        glow = np.exp(-distance / .02) * near + np.exp(-distance / .12) * far
        a += (np.array(color, np.float32) - a) * glow.clip(0, 1)[..., None]
    image = Image.fromarray(a.clip(0, 255).astype(np.uint8)).resize((width, width), Image.BILINEAR)
    return image, sun


STARS = [(.07, .08), (.19, .20), (.30, .06), (.41, .24), (.52, .10), (.63, .22), (.74, .05), (.85, .18), (.95, .09),
         (.12, .34), (.36, .38), (.58, .36), (.80, .33), (.93, .36)]


def lights(pen, scene, sun):
    time = scene["time"]
    if time in ("night", "aurora"):
        for i, (x, y) in enumerate(STARS):
            pen.circle(x, y, (.0075, .0055, .0065)[i % 3], (222, 230, 255))
    if time == "night":
        crescent(pen, *sun, .088, (250, 246, 216))
    elif time == "day":
        pen.circle(*sun, .068, (255, 226, 92))
    elif time == "dawn":
        pen.circle(*sun, .078, (255, 244, 214))
    elif time == "sunset":
        pen.circle(*sun, .125, (255, 204, 104))
        pen.circle(*sun, .098, (255, 232, 150))


def crescent(pen, x, y, r, color):
    """A moon between two arcs, turned a little."""
    points = []
    for i in range(17):
        a = math.pi * (.5 + i / 16)
        points.append((math.cos(a), math.sin(a)))
    for i in range(1, 16):
        a = math.pi * (1.5 - i / 16)
        points.append((.34 * math.cos(a), math.sin(a)))
    cos, sin = math.cos(.5), math.sin(.5)
    pen.polygon([(x + r * (.4 + u * cos - v * sin), y + r * (u * sin + v * cos)) for u, v in points], color)


def cloud(pen, x, y, s, color, under):
    if s < .006:
        return
    for dx, dy, r in ((-1.3, .10, .62), (1.3, .12, .60), (-.45, -.42, .85), (.55, -.25, .80)):
        pen.circle(x + dx * s, y + dy * s, r * s, color)
    pen.rect(x - 1.3 * s, y - .1 * s, x + 1.3 * s, y + .72 * s, color)
    pen.rect(x - 1.25 * s, y + .50 * s, x + 1.25 * s, y + .72 * s, under)


def clouds(pen, scene, u):
    color = CLOUD[scene["time"]]
    under = mix(color, SKY[scene["time"]][1], .40)
    for row, size, top in ((0, .062, .125), (1, .046, .335)):
        for c in range(4):
            # Half of them are gone; the others grow from nothing as their key rises.
            grown = max(0., (u[0, row, c] - .45) / .55) ** .6
            x = (c + .5) / 4 + .14 * (u[1, row, c] - .5)
            y = top + (.09 * (u[2, row, c] - .5) if row == 0 else 0)
            cloud(pen, x, y, size * grown, color, under)


def background(pen, scene, u, sun):
    time, light = scene["time"], LIGHT[scene["time"]]
    haze = SKY[time][2]
    if scene["background"] == "mountains":
        rock = mix(times((112, 120, 156), light), haze, .22)
        lit = mix(times((160, 166, 192), light), haze, .22)
        snow = times((250, 252, 255), mix((1, 1, 1), light, .75))
        for i in (1, 3, 0, 2):
            x = (i + .5) / 4 + .12 * (u[2, 1, i] - .5) + (.03 if i % 2 else -.02)
            h = .21 + .17 * u[3, 1, i] + (.05 if i in (0, 2) else 0)
            w, base = .12 + .42 * h, HORIZON + .03
            side = 1 if x < sun[0] else -1
            pen.polygon([(x - w, base), (x, base - h), (x + w, base)], rock)
            pen.polygon([(x, base - h), (x + side * w, base), (x - side * w * .15, base)], lit)
            k = .36                             # the snow cap
            y = base - h * (1 - k)
            pen.polygon([(x - w * k, y), (x, base - h), (x + w * k, y), (x + w * k * .4, y - .012),
                         (x + w * k * .05, y + .022), (x - w * k * .45, y - .012)], snow)
    if scene["background"] != "none":
        hill = {"snow": (206, 220, 240), "desert": (214, 156, 92), "lavender": (112, 150, 116)}.get(
            scene["ground"], (88, 150, 96))
        low = scene["background"] == "mountains"
        for k, (amp, fade, shadow) in enumerate(((.13, .34, 1.), (.075, .14, .94))):
            color = dim(mix(times(hill, light), haze, fade), shadow)
            amp = amp * (.55 if low else 1)
            row = [u[2 + k, 2, c] for c in range(4)]
            ridge(pen, [amp * (.25 + .9 * v) for v in row], HORIZON + .02, color)


def water(pen, scene, sun, bank):
    """Water from the horizon to the bank: calm bands that take the sky's colours."""
    time, light = scene["time"], LIGHT[scene["time"]]
    base = times((28, 122, 190) if scene["ground"] == "sea" else (66, 150, 186), light)
    low = SKY[time][2]
    bands = 5
    for i in range(bands):
        t = i / (bands - 1)
        y0 = HORIZON + (bank - HORIZON) * i / bands
        pen.rect(0, y0, 1, bank + .06, mix(mix(base, low, .45), base, t))
    if time != "aurora":        # the light's path on the water
        shine = {"day": (255, 255, 240), "dawn": (255, 240, 220), "sunset": (255, 216, 130), "night": (220, 228, 250)}
        for i in range(5):
            y = HORIZON + .012 + (bank - HORIZON) * (i + .2) / 5.4
            w = (.075, .055, .085, .05, .065)[i]
            pen.rect(sun[0] - w, y, sun[0] + w, y + .014, mix(base, shine[time], .7))


def ground(pen, scene, u, sun):
    kind, light = scene["ground"], LIGHT[scene["time"]]
    color = times(GROUND[kind], light)
    top = HORIZON + .045
    if kind in WATER:
        top = .765 if kind == "sea" else .745
        water(pen, scene, sun, top)
        if kind == "sea":
            ridge(pen, [.012 + .03 * u[2, 3, c] for c in range(4)], top, mix(color, (255, 255, 255), .65))
            top += .018
    rise = .03 if kind in WATER else .055
    ridge(pen, [rise * u[2, 3, c] for c in range(4)], top, color)
    if kind == "lavender":      # rows that meet at the horizon
        dark, leaf = times((112, 74, 166), light), times((100, 140, 92), light)
        for i in range(-6, 7):
            for offset, width, c in ((0, .46, dark), (.5, .18, leaf)):
                x = .5 + (i + offset) * .20
                pen.polygon([(.5 + (x - .5) * .30, top + .01), (x - width * .12, 1.01), (x + width * .12, 1.01)], c)
    elif kind in ("meadow", "lake"):
        ridge(pen, [.03 * u[3, 3, c] for c in range(4)], .90, times((96, 166, 74), light))
    elif kind == "desert":
        ridge(pen, [.06 * u[3, 3, c] - .02 for c in range(4)], .90, times((224, 170, 98), light))
    elif kind == "snow":
        ridge(pen, [.04 * u[3, 3, c] for c in range(4)], .90, times((214, 228, 246), light))
    elif kind == "sea":
        ridge(pen, [.03 * u[3, 3, c] for c in range(4)], .92, times((236, 208, 148), light))


def tree(pen, kind, scene, x, y, h):
    light = mix((1, 1, 1), LIGHT[scene["time"]], .75)
    p = Local(pen, x, y, h)
    trunk = times((112, 74, 48), light)
    snowy = scene["ground"] == "snow"
    if kind == "pine":
        green, shadow = times((34, 112, 78), light), times((24, 86, 64), light)
        p.rect(-.05, 0, .05, .2, trunk)
        for v, w, t in ((.12, .27, .56), (.36, .22, .80), (.60, .165, 1.02)):
            p.polygon([(-w, v), (0, t), (w, v)], green)
            p.polygon([(0, t), (w, v), (.04, v)], shadow)
            if snowy:
                half = v + (t - v) * .5
                p.polygon([(-w * .5, half), (0, t), (w * .5, half)], times((246, 250, 255), light))
    elif kind == "oak":
        green = times((78, 156, 58), light) if not snowy else times((232, 240, 250), light)
        p.rect(-.055, 0, .055, .45, trunk)
        for du, dv, r in ((-.15, .52, .17), (.15, .50, .17), (0, .72, .20), (0, .52, .18)):
            p.ellipse(du, dv, r, r, dim(green, .84))
        for du, dv, r in ((-.14, .56, .12), (-.03, .76, .14)):
            p.ellipse(du, dv, r, r, green)
    else:
        green, shadow = times((42, 150, 88), light), times((30, 118, 74), light)
        p.polygon([(-.055, 0), (.055, 0), (.075, .40), (.125, .78), (.045, .78), (-.02, .40)], trunk)
        cu, cv = .085, .78
        for k, (du, dv) in enumerate(((-.36, -.16), (.36, -.16), (-.38, .06), (.38, .06), (-.20, .22), (.22, .22))):
            mu, mv = cu + du * .55, cv + dv * .55 + .12
            p.polygon([(cu - .03, cv - .03), (mu, mv + .05), (cu + du, cv + dv), (mu, mv - .085), (cu + .03, cv - .04)],
                      (shadow, shadow, green, green, green, green)[k])
        p.ellipse(cu, cv - .03, .05, .05, times((140, 92, 52), light))


def trees(pen, scene, u, front):
    count = scene["trees"]
    if count == "0":
        return
    if count == "many":
        if front:
            return
        foot = .80 if scene["ground"] in WATER else .70
        for i in range(8):
            x = (i + .5) / 8
            c = min(3, int(x * 4))
            tree(pen, scene["tree"], scene, x + .02 * (u[0, 3, c] - .5), foot + .012 * (i % 2),
                 .24 + .06 * (u[1, 3, c] if i % 2 else 1 - u[1, 3, c]))
        return
    if not front:
        return
    where = scene["place"] if scene["object"] != "none" else "none"
    for i, x in enumerate(SLOTS[where][count]):
        c = min(3, int(x * 4))
        tree(pen, scene["tree"], scene, x + .05 * (u[0, 3, c] - .5), .90 + .022 * (i % 2),
             .40 + .09 * u[1, 3, c])


def house(p, c, window, light, name):
    roof = times((96, 62, 60) if name not in ("red", "orange") else (78, 80, 104), light)
    p.rect(.42, 1.2, .70, 2.05, times((150, 106, 92), light))
    p.rect(-.95, 0, .95, 1.15, c)
    p.polygon([(-1.22, 1.08), (-.62, 1.95), (.62, 1.95), (1.22, 1.08)], roof)
    p.rect(-.95, .96, .95, 1.09, dim(c, .80))
    p.rect(-.21, 0, .21, .72, times((96, 58, 40), light))
    for u in (-.60, .60):
        p.rect(u - .24, .34, u + .24, .84, times((250, 248, 240), light))
        p.rect(u - .17, .41, u + .17, .77, window)


def castle(p, c, window, light, name):
    stone = mix(times((196, 190, 186), light), c, .38)
    dark = dim(stone, .84)
    for u in (-.38, 0, .38):
        p.rect(u - .12, 1.0, u + .12, 1.34, stone)
    p.rect(-.75, 0, .75, 1.15, stone)
    p.rect(-.055, 1.3, .03, 2.25, times((90, 70, 60), light))
    p.polygon([(-.02, 2.3), (.52, 2.08), (-.02, 1.84)], c)
    for u in (-.95, .95):
        p.rect(u - .30, 0, u + .30, 1.55, dark)
        p.polygon([(u - .42, 1.5), (u, 2.4), (u + .42, 1.5)], c)
        p.rect(u - .11, .95, u + .11, 1.3, window)
    p.rect(-.28, 0, .28, .5, times((84, 52, 38), light))
    p.ellipse(0, .5, .28, .28, times((84, 52, 38), light))


def lighthouse(p, c, window, light, name):
    pale = times((250, 248, 242) if name != "white" else (176, 186, 204), light)
    p.ellipse(0, .02, 1.0, .22, times((120, 114, 116), light))
    width = lambda v: .58 - .20 * v / 1.95
    for i in range(4):
        v0, v1 = 1.95 * i / 4, 1.95 * (i + 1) / 4
        p.polygon([(-width(v0), v0), (width(v0), v0), (width(v1), v1), (-width(v1), v1)], (c, pale)[i % 2])
    p.rect(-.52, 1.92, .52, 2.06, times((70, 72, 88), light))
    p.rect(-.29, 2.06, .29, 2.45, (255, 240, 150))
    p.polygon([(-.42, 2.43), (0, 2.86), (.42, 2.43)], c)


def windmill(p, c, window, light, name):
    p.polygon([(-.70, 0), (.70, 0), (.44, 1.62), (-.44, 1.62)], c)
    p.polygon([(.20, 0), (.70, 0), (.44, 1.62), (.14, 1.62)], dim(c, .84))
    p.polygon([(-.54, 1.58), (-.30, 2.0), (.30, 2.0), (.54, 1.58)], times((104, 66, 54), light))
    p.rect(-.20, 0, .20, .55, times((96, 58, 40), light))
    hub = 1.66
    sail = times((252, 246, 226), light) if name != "white" else times((190, 150, 110), light)
    for k in range(4):
        a = .45 + k * math.pi / 2
        du, dv = math.cos(a), math.sin(a)
        at = lambda along, across: (du * along - dv * across, hub + dv * along + du * across)
        p.polygon([at(.22, -.05), at(1.28, -.05), at(1.28, .30), at(.22, .30)], sail)
        p.polygon([at(0, -.075), at(1.28, -.075), at(1.28, .045), at(0, .045)], times((92, 62, 46), light))
    p.ellipse(0, hub, .13, .13, times((70, 48, 38), light))


def tent(p, c, window, light, name):
    p.polygon([(-.10, 1.62), (.55, 1.50), (1.40, .06), (.85, 0)], dim(c, .74))
    p.polygon([(-1.15, 0), (-.10, 1.62), (.85, 0)], c)
    p.polygon([(-.15, 1.62), (-.05, 1.62), (-.05, 1.85), (-.15, 1.85)], times((100, 70, 50), light))
    p.polygon([(-.55, 0), (-.10, 1.10), (.28, 0)], times((70, 52, 52), light) if window is None else window)


def boat(p, c, window, light, name):
    hull = times((128, 72, 44), light)
    p.rect(-.06, .3, .06, 2.55, times((80, 54, 40), light))
    p.polygon([(.13, 2.5), (.13, .62), (1.12, .62)], c)
    p.polygon([(-.13, 2.2), (-.13, .62), (-.92, .62)], dim(c, .82))
    p.polygon([(-1.22, .46), (1.28, .46), (.86, -.08), (-.84, -.08)], hull)
    p.polygon([(-1.22, .46), (1.28, .46), (1.17, .32), (-1.10, .32)], times((248, 240, 224), light))


def balloon(p, c, window, light, name):
    pale = mix(c, (255, 255, 255), .62) if name != "white" else times((198, 206, 222), light)
    basket = times((136, 88, 52), light)
    for u0, u1 in ((-.34, -.20), (.34, .20)):
        p.polygon([(u0 - .03, -.9), (u0 + .03, -.9), (u1 + .03, -1.4), (u1 - .03, -1.4)], times((90, 64, 50), light))
    for scale, color in ((1., c), (.66, pale), (.30, c)):
        p.ellipse(0, 0, scale, 1., color)
        p.polygon([(-.93 * scale, -.36), (.93 * scale, -.36), (.36 * scale, -1.06), (-.36 * scale, -1.06)], color)
    p.rect(-.25, -1.62, .25, -1.30, basket)


DRAW = {"house": house, "castle": castle, "lighthouse": lighthouse, "windmill": windmill, "tent": tent, "boat": boat,
        "balloon": balloon}


def main_object(pen, scene, u):
    kind = scene["object"]
    if kind == "none":
        return
    column = COLUMN[scene["place"]]
    x = PLACE[scene["place"]] + .08 * (u[0, 2, column] - .5)
    scale = .90 + .20 * u[1, 2, column]
    light = mix((1, 1, 1), LIGHT[scene["time"]], .38)
    color = times(COLORS[scene["color"]], light)
    window = (255, 220, 110) if scene["time"] != "day" else (120, 176, 214)
    if kind == "balloon":
        p = Local(pen, x, .285 + .04 * (u[3, 1, column] - .5), .195 * scale)
    elif kind == "boat":
        p = Local(pen, x, .755, .19 * scale)
    else:
        unit = {"lighthouse": .195, "tent": .22, "house": .205, "castle": .195, "windmill": .20}[kind]
        p = Local(pen, x, FOOT, unit * scale)
        shadow = dim(times(GROUND[scene["ground"]], LIGHT[scene["time"]]), .72)
        pen.ellipse(x + .02, FOOT, 1.25 * unit * scale, .025, shadow)
    if kind == "tent" and scene["time"] == "day":
        window = None
    DRAW[kind](p, color, window, light, scene["color"])


def render(scene, keys, size=128, supersample=3):
    """-> (uint8 picture [size,size,3], uint8 mask [size/8,size/8] of the object and the trees)."""
    u = uniform(keys)
    image, sun = sky(scene, u, size * supersample)
    mask = Image.new("L", (size // 2, size // 2), 0)
    pen = Pen(image, mask)
    lights(pen, scene, sun)
    if scene["clouds"] == "some":
        clouds(pen, scene, u)
    background(pen, scene, u, sun)
    ground(pen, scene, u, sun)
    pen.marking = True
    trees(pen, scene, u, front=False)
    main_object(pen, scene, u)
    trees(pen, scene, u, front=True)
    return np.asarray(image.reduce(supersample)), np.asarray(mask.reduce(4))


_erf = np.vectorize(math.erf)


def uniform(keys):
    """N(0,1) keys as numbers in (0,1)."""
    return .5 * (1 + _erf(np.asarray(keys, np.float64) / math.sqrt(2)))
