"""What both doctors look at alike: the account, the chain, the clock, ports, disks; and how they report."""
