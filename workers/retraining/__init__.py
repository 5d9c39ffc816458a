"""Jobs that train: the runner directs, row processes train and measure."""
