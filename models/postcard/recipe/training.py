"""What the training commands share: a schedule that ends when it is told to, checkpoints, averages."""

import datetime
import os
import time

import torch


def add_arguments(parser, minutes):
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="threads of one process; 1 is best on a shared machine")
    parser.add_argument("--minutes", type=float, default=minutes, help="how long to train")
    parser.add_argument("--until", help="train until this time of day (HH:MM, UTC) instead")
    parser.add_argument("--samples", type=int, help="train for this many samples instead")
    parser.add_argument("--save-minutes", type=float, default=3)


class Clock:
    """Progress from 0 to 1 by whichever budget was given. Learning rates follow it, so that a run always ends with
    its decay done, however slow the machine was. A resumed run keeps what had elapsed."""

    def __init__(self, args, elapsed=0., seen=0):
        self.start, self.before, self.seen, self.samples = time.time(), elapsed, seen, args.samples
        self.total = args.minutes * 60
        if args.until:
            now = datetime.datetime.now(datetime.timezone.utc)
            hour, minute = map(int, args.until.split(":"))
            end = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
            self.total = elapsed + ((end - now).total_seconds() % 86400)
        self.saved = time.time()
        self.every = args.save_minutes * 60

    def elapsed(self):
        return self.before + time.time() - self.start

    def progress(self):
        return min(1., self.seen / self.samples if self.samples else self.elapsed() / self.total)

    def save_due(self):
        if time.time() - self.saved < self.every:
            return False
        self.saved = time.time()
        return True


class Average:
    """Exponential moving average of a module's parameters and buffers."""

    def __init__(self, module, decay):
        self.module, self.decay, self.steps = module, decay, 0
        self.values = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, every=5):
        self.steps += 1
        if self.steps % every:
            return
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps)) ** every
        for k, v in self.module.state_dict().items():
            if v.is_floating_point():
                self.values[k].lerp_(v, 1 - decay)
            else:
                self.values[k].copy_(v)

    def __enter__(self):
        """Inside the block the module holds the averages."""
        self.kept = {k: v.detach().clone() for k, v in self.module.state_dict().items()}
        self.module.load_state_dict(self.values)

    def __exit__(self, *_):
        self.module.load_state_dict(self.kept)


def save(path, value):
    """All or nothing: a crash never leaves half a checkpoint."""
    torch.save(value, f"{path}.part")
    os.replace(f"{path}.part", path)


def begin(args):
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    if args.device == "cpu":
        os.environ.setdefault("OMP_NUM_THREADS", str(args.threads))


def autocast(device):
    return torch.autocast(device.split(":")[0], torch.bfloat16)
