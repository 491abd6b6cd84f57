"""Gates: is this model good enough, better than nothing, no worse than the champion, and not too good?"""
