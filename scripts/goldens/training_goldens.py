"""Goldens of training: losses, schedules and the optimizer, by PyTorch in float64 and by transformers.

Run by make.py.
"""

import json

import torch
import torch.nn.functional as functional
import transformers


def listed(tensor):
    return tensor.detach().reshape(-1).tolist()


def loss_case(generator, name, rows, outputs, compute, target, scale=4.0):
    """A batch of logits with the loss of torch and its gradient; logits are float32 values."""
    logits = (torch.randn(rows, outputs, generator=generator) * scale).double().requires_grad_()
    loss = compute(logits)
    loss.backward()
    return {
        "name": name, "rows": rows, "outputs": outputs, "logits": listed(logits), "target": target,
        "loss": loss.item(), "gradient": listed(logits.grad),
    }


def losses(generator):
    cases = []
    for rows, outputs in ((1, 2), (5, 3), (7, 17), (3, 301)):
        labels = torch.randint(0, outputs, (rows,), generator=generator)
        if rows > 2:
            labels[1] = -100
        cases.append(
            loss_case(generator, "cross_entropy", rows, outputs, lambda x: functional.cross_entropy(x, labels), labels.tolist()))
        marks = torch.randint(0, 2, (rows, outputs), generator=generator).double()
        cases.append(
            loss_case(
                generator, "binary", rows, outputs, lambda x: functional.binary_cross_entropy_with_logits(x, marks),
                listed(marks), scale=9.0))
        values = torch.randn(rows, outputs, generator=generator).double()
        cases.append(
            loss_case(generator, "squared_error", rows, outputs, lambda x: functional.mse_loss(x, values), listed(values)))
    return cases


def pairs(generator):
    cases = []
    for count, width in ((1, 5), (3, 8), (7, 33)):
        first = torch.randn(count, width, generator=generator).double().requires_grad_()
        second = (first.detach() + 0.7 * torch.randn(count, width, generator=generator)).float().double().requires_grad_()
        scores = torch.rand(count, generator=generator).double()
        for kind in ("negatives", "symmetric", "scores"):
            first.grad = second.grad = None
            a, b = functional.normalize(first, dim=1), functional.normalize(second, dim=1)
            if kind == "scores":
                loss = functional.mse_loss((a * b).sum(1), scores)
            else:
                cosines = 20 * a @ b.T
                right = torch.arange(count)
                loss = functional.cross_entropy(cosines, right)
                if kind == "symmetric":
                    loss = (loss + functional.cross_entropy(cosines.T, right)) / 2
            loss.backward()
            cases.append({
                "name": kind, "pairs": count, "width": width, "first": listed(first), "second": listed(second),
                "scores": listed(scores), "loss": loss.item(), "first_gradient": listed(first.grad),
                "second_gradient": listed(second.grad),
            })
    return cases


def schedules():
    cases = []
    for warmup, steps, decay in ((0, 10, 3), (4, 25, 7), (10, 10, 1), (3, 100, 10)):
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        made = {
            "linear": transformers.get_linear_schedule_with_warmup(optimizer, warmup, steps),
            "cosine": transformers.get_cosine_schedule_with_warmup(optimizer, warmup, steps),
            "constant": transformers.get_constant_schedule_with_warmup(optimizer, warmup),
        }
        if warmup + decay <= steps:
            made["warmup-stable-decay"] = transformers.get_wsd_schedule(
                optimizer, num_warmup_steps=warmup, num_decay_steps=decay, num_training_steps=steps)
        for name, schedule in made.items():
            factor = schedule.lr_lambdas[0]
            cases.append({
                "name": name, "warmup": warmup, "steps": steps, "decay": decay,
                "factors": [float(factor(step)) for step in range(steps + 1)],
            })
    return cases


def optimizer(generator, steps=40):
    """AdamW over three parameters: a matrix and two vectors, of which vectors do not decay; gradients clipped to 1."""
    shapes = {"a.weight": [7, 5], "b.bias": [11], "c.weight": [13]}
    tensors = {name: torch.randn(*shape, generator=generator).double().requires_grad_() for name, shape in shapes.items()}
    start = {name: listed(tensor) for name, tensor in tensors.items()}
    groups = [
        {"params": [tensors["a.weight"]], "weight_decay": 0.1},
        {"params": [tensors["b.bias"], tensors["c.weight"]], "weight_decay": 0.0},
    ]
    adam = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.98), eps=1e-6)
    schedule = transformers.get_linear_schedule_with_warmup(adam, 5, steps)
    gradients, norms = [], []
    for step in range(steps):
        # Some are far above the norm that is clipped to, some far below.
        scale = 3.0 if step % 3 else 0.01
        given = {name: scale * torch.randn(*shape, generator=generator) for name, shape in shapes.items()}
        gradients.append({name: listed(tensor) for name, tensor in given.items()})
        for name, tensor in tensors.items():
            tensor.grad = given[name].double()
        norms.append(torch.nn.utils.clip_grad_norm_(list(tensors.values()), 1.0).item())
        adam.step()
        schedule.step()
    return {
        "shapes": shapes, "start": start, "gradients": gradients, "norms": norms, "steps": steps,
        "end": {name: listed(tensor) for name, tensor in tensors.items()},
        "mean": {name: listed(adam.state[tensor]["exp_avg"]) for name, tensor in tensors.items()},
        "square": {name: listed(adam.state[tensor]["exp_avg_sq"]) for name, tensor in tensors.items()},
    }


def metrics(generator):
    """Metrics by scipy and scikit-learn; entities by hand, as CoNLL counts them."""
    import scipy.stats
    import sklearn.metrics

    cases = []
    for count, labels in ((1, 2), (9, 3), (50, 4)):
        truth = torch.randint(0, labels, (count,), generator=generator).tolist()
        chosen = torch.randint(0, labels + 1, (count,), generator=generator).tolist()
        x = torch.randint(0, 7, (count,), generator=generator).double().tolist()
        y = (torch.tensor(x) + 3 * torch.randn(count, generator=generator)).round().tolist()
        marks = torch.randint(0, 2, (2, count, labels), generator=generator).tolist()
        cases.append({
            "truth": truth, "chosen": chosen, "x": x, "y": y, "marks": marks[0], "chosen_marks": marks[1],
            "accuracy": sklearn.metrics.accuracy_score(truth, chosen),
            "f1_macro": sklearn.metrics.f1_score(truth, chosen, average="macro", zero_division=0),
            "f1_micro": sklearn.metrics.f1_score(marks[0], marks[1], average="micro", zero_division=0),
            "spearman": scipy.stats.spearmanr(x, y).statistic if count > 1 else 0.0,
        })
    return cases


def make(folder):
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(23)
    text = json.dumps({
        "losses": losses(generator), "pairs": pairs(generator), "schedules": schedules(), "optimizer": optimizer(generator),
        "metrics": metrics(generator),
    })
    (folder / "training.json").write_text(text + "\n")
