"""The butterfly: how the replicas of a stage become one model at the end of an epoch, with nobody in charge."""
