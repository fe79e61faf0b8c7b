"""What the workflow's rules do: one module per rule, named as the rule, with one typed request and one function.

The rule's script in scripts/ and the console commands build the request; everything else of the stage is in its module.
"""
