"""The work: each module one job of the engine; scripts and the scheduler call what is here."""
