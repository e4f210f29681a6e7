"""Makes the data-set folders that comigs reads: text split by document, tokenised, in raw token files.

`python -m data_prep {multilingual,ag_news,slimpajama,text} ... --output FOLDER`; see `--help` of each.
"""
