"""A reader of torch.export archives that treats them as data: no pickle, no eval, no import by name."""
