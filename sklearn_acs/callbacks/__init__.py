"""Callbacks stop a training, guard it, and follow it; users put them into `callbacks=`."""
